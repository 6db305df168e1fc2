package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/signal"
	"runtime/debug"
	"slices"
	"strings"
	"sync"

	"github.com/cosi-os/cosi/api/kinds/builtin"
	"github.com/cosi-os/cosi/engine/runtime/headroom"
	"github.com/cosi-os/cosi/engine/runtime/limit"
	"github.com/cosi-os/cosi/engine/runtime/schema"
	"github.com/cosi-os/cosi/engine/runtime/server"
	"github.com/cosi-os/cosi/engine/runtime/state"
	"github.com/cosi-os/cosi/engine/runtime/state/log"
	"github.com/cosi-os/cosi/engine/runtime/state/memory"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
)

// openNamespace takes resources of any type when the runtime runs alone.
const openNamespace = "default"

// serveAlone serves one unix socket until ctx is done. Whoever can open it may do anything, as any owner. With a directory, everything
// is kept there; it fails when that is damaged.
func serveAlone(ctx context.Context, address, dir string, l *limit.Limiter) error {
	headroom.Keep()
	path, ok := strings.CutPrefix(address, "unix:")
	if !ok {
		return fmt.Errorf("--listen %s: only unix sockets are served without TLS (unix:///tmp/cosi.sock)", address)
	}
	path = "/" + strings.TrimLeft(path, "/")
	if dir == "" {
		return serveStore(ctx, path, memory.New(memory.Options{Limits: history, Most: l.ResourcesOfKind}), l)
	}
	store, err := log.Open(dir, log.Options{Limits: history, Most: l.ResourcesOfKind, Warn: warn})
	if err != nil {
		return fmt.Errorf("--data %w", err)
	}
	debug.FreeOSMemory() // of recovery, which reads everything once
	if c := store.Cut(); c != nil {
		warn(fmt.Errorf("--data %s: %s: a write that was never acknowledged is cut off: %d bytes at %d", dir, c.File, c.Bytes, c.Offset))
	}
	ctx, stop := context.WithCancel(ctx)
	var running sync.WaitGroup
	running.Go(func() { store.Run(ctx) })
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, unix.SIGUSR1)
	running.Go(func() { tellSyncs(ctx, store, asked) })
	err = serveStore(ctx, path, store, l)
	stop()
	running.Wait()
	return errors.Join(err, store.Close())
}

// tellSyncs says how often writers have waited for the disk, and how long, whenever it is asked by a signal: what is written in a second
// means nothing without it. hack/bench asks.
func tellSyncs(ctx context.Context, store *log.Store, asked <-chan os.Signal) {
	for {
		select {
		case <-asked:
			n, p50 := store.Syncs()
			fmt.Fprintf(os.Stderr, "fdatasyncs %d %v\n", n, p50)
		case <-ctx.Done():
			return
		}
	}
}

func warn(err error) { fmt.Fprintln(os.Stderr, "runtime:", err) }

// serveStore serves what a store holds on a unix socket.
func serveStore(ctx context.Context, path string, store state.State, l *limit.Limiter) error {
	listener, err := listenUnix(path)
	if err != nil {
		return err
	}
	checked := schema.New(store, builtin.Set(), openNamespace)
	if err := checked.Recover(ctx); err != nil {
		return errors.Join(err, listener.Close())
	}
	top := l.State(checked, "everybody")
	g := grpc.NewServer(slices.Concat(server.Options(), server.Busy(), []grpc.ServerOption{grpc.MaxRecvMsgSize(int(l.Values().GetMessageBytes()))})...)
	server.New(func(context.Context) (state.State, error) { return top, nil }).Register(g)
	return serve(ctx, g, listener)
}

// listenUnix takes the place of a socket that nobody listens on any more.
func listenUnix(path string) (net.Listener, error) {
	if info, err := os.Lstat(path); err == nil && info.Mode().Type() == fs.ModeSocket {
		if conn, err := net.Dial("unix", path); err == nil {
			conn.Close()
			return nil, fmt.Errorf("listen unix %s: another process serves it", path)
		}
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	return net.Listen("unix", path)
}

// serve serves until ctx is done or the listener fails.
func serve(ctx context.Context, g *grpc.Server, listener net.Listener) error {
	ended := make(chan error, 1)
	go func() { ended <- g.Serve(listener) }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
		g.Stop()
		<-ended
		return ctx.Err()
	}
}
