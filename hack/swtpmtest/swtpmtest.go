// Package swtpmtest gives tests a TPM in software, as new. A test that calls it is skipped where swtpm is not installed, except in CI.
package swtpmtest

import (
	"crypto/sha256"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
	"github.com/google/go-tpm/tpm2/transport/linuxudstpm"
)

// Start starts a TPM that is new and returns its socket.
func Start(t *testing.T) string {
	t.Helper()
	socket, _ := Run(t, Dir(t))
	return socket
}

// Dir makes the directory in which a TPM keeps what it has. t.TempDir is too long a name for a socket.
func Dir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "tpm")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// Run has the TPM of a directory run, until off is called or the test ends, and returns its socket.
func Run(t *testing.T, dir string) (socket string, off func()) {
	t.Helper()
	program, err := exec.LookPath("swtpm")
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip("swtpm is not installed (hack/setup installs it)")
	}
	socket = filepath.Join(dir, "s")
	os.Remove(socket) // of a run before
	cmd := exec.Command(program, "socket", "--tpm2", "--tpmstate", "dir="+dir, "--server", "type=unixio,path="+socket,
		"--ctrl", "type=unixio,path="+filepath.Join(dir, "c"), "--flags", "not-need-init,startup-clear")
	out := &strings.Builder{}
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	off = sync.OnceFunc(func() { cmd.Process.Kill(); cmd.Wait() })
	t.Cleanup(func() {
		off()
		if t.Failed() {
			t.Logf("swtpm: %s", out)
		}
	})
	for range 200 {
		if _, err := os.Stat(socket); err == nil {
			return socket, off
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Fatal("swtpm does not start")
	return "", nil
}

// Open opens the TPM of a socket. It serves one at a time.
func Open(t *testing.T, socket string) transport.TPMCloser {
	t.Helper()
	chip, err := linuxudstpm.Open(socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { chip.Close() })
	return chip
}

// Extend extends a register with the hash of data.
func Extend(t *testing.T, chip transport.TPM, pcr int, data string) {
	t.Helper()
	digest := sha256.Sum256([]byte(data))
	_, err := tpm2.PCRExtend{
		PCRHandle: tpm2.AuthHandle{Handle: tpm2.TPMHandle(pcr), Auth: tpm2.PasswordAuth(nil)},
		Digests:   tpm2.TPMLDigestValues{Digests: []tpm2.TPMTHA{{HashAlg: tpm2.TPMAlgSHA256, Digest: digest[:]}}},
	}.Execute(chip)
	if err != nil {
		t.Fatal(err)
	}
}
