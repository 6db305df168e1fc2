// Package guestcount measures a boot in executed guest instructions, which repeat within 1 % whatever
// else the host does, where seconds under emulation do not. The benchmarks use it.
//
// The count comes from a plugin of QEMU's emulator (plugin/counter.c), built with cc on first use. A
// Measurement is a boot with a list of moments: what the console shows, the first TLS answer, and the
// first authenticated Get that says ready.
package guestcount

import (
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"
)

//go:embed plugin/counter.c
var source []byte

// build returns the plugin, compiled into dir unless it lies there already.
func build(ctx context.Context, dir string) (string, error) {
	plugin := filepath.Join(dir, fmt.Sprintf("guestcount-%x.so", sha256.Sum256(source)))
	if _, err := os.Stat(plugin); err == nil {
		return plugin, nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	work, err := os.MkdirTemp(dir, "cc")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(work)
	c, so := filepath.Join(work, "counter.c"), filepath.Join(work, "counter.so")
	if err := os.WriteFile(c, source, 0o644); err != nil {
		return "", err
	}
	out, err := exec.CommandContext(ctx, "cc", "-O2", "-Wall", "-Werror", "-shared", "-fPIC", "-pthread", "-o", so, c).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("instruction counter: cc: %w\n%s", err, out)
	}
	return plugin, os.Rename(so, plugin)
}

// counter asks the plugin in a VM. Several goroutines may ask.
type counter struct {
	dir      string // short: a socket's path has at most 107 bytes
	listener *net.UnixListener

	mu   sync.Mutex // one question at a time
	conn net.Conn
}

func newCounter() (*counter, error) {
	dir, err := os.MkdirTemp("", "cosi")
	if err != nil {
		return nil, err
	}
	c := &counter{dir: dir}
	c.listener, err = net.ListenUnix("unix", &net.UnixAddr{Name: c.socket(), Net: "unix"})
	if err != nil {
		os.RemoveAll(dir)
		return nil, err
	}
	return c, nil
}

func (c *counter) socket() string { return filepath.Join(c.dir, "count") }

// accept takes the plugin's connection, which it has made before QEMU answers on its monitor.
func (c *counter) accept() error {
	if err := c.listener.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return err
	}
	var err error
	if c.conn, err = c.listener.Accept(); err != nil {
		return fmt.Errorf("instruction counter: %w", err)
	}
	return nil
}

// read returns the number of instructions executed so far.
func (c *counter) read() (uint64, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, err := c.conn.Write([]byte{'?'}); err != nil {
		return 0, fmt.Errorf("instruction counter: %w", err)
	}
	var n [8]byte
	if _, err := io.ReadFull(c.conn, n[:]); err != nil {
		return 0, fmt.Errorf("instruction counter: %w", err)
	}
	return binary.NativeEndian.Uint64(n[:]), nil
}

func (c *counter) close() {
	c.listener.Close()
	if c.conn != nil {
		c.conn.Close()
	}
	os.RemoveAll(c.dir)
}
