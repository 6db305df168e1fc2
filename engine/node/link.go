package node

import (
	"bufio"
	"context"
	"errors"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cosi-os/cosi/engine/crash"
	"github.com/cosi-os/cosi/engine/wire"
)

// stageReady is the runtime's word for: plugins registered, user data applied, the network has an address.
const stageReady = "ready"

// stageAPI is its word for: the port listens. With all it needs, a node is ready a moment later.
const stageAPI = "api"

// link is the conversation with one run of the runtime.
type link struct {
	f    *os.File
	done chan struct{} // closed when it is over
}

// newLink makes the pair of sockets, begins the conversation on one end and returns the other.
func (n *Node) newLink(ctx context.Context) (*link, *os.File, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	if err := unix.SetNonblock(pair[0], true); err != nil { // so that Close ends a Read
		return nil, nil, err
	}
	l := &link{f: os.NewFile(uintptr(pair[0]), "runtime"), done: make(chan struct{})}
	theirs := os.NewFile(uintptr(pair[1]), "engine")
	replay := n.record.connect()
	n.background.Go(func() {
		defer crash.Guard()
		defer close(l.done)
		n.converse(ctx, l, replay)
	})
	return l, theirs, nil
}

// converse talks until the runtime has closed its end, ctx is done, or one side said what the other cannot read.
func (n *Node) converse(ctx context.Context, l *link, replay []wire.Up) {
	ended, cancel := context.WithCancel(ctx)
	reader := make(chan struct{})
	go func() {
		defer crash.Guard()
		defer close(reader)
		defer cancel()
		conn := wire.NewConn(l.f)
		for {
			var down wire.Down
			if err := conn.Receive(&down); err != nil {
				if !over(err) && ended.Err() == nil {
					n.log.Printf("runtime: %v", err)
				}
				return
			}
			n.obey(ctx, &down)
		}
	}()
	if err := n.tell(ended, l.f, replay); !over(err) && ended.Err() == nil {
		n.log.Printf("runtime: %v", err)
	}
	n.record.disconnect()
	cancel()
	l.f.Close()
	<-reader
}

// over reports whether an error is the end of the runtime: what it had not read is lost with it.
func over(err error) bool {
	return err == nil || errors.Is(err, io.EOF) || errors.Is(err, unix.ECONNRESET) || errors.Is(err, unix.EPIPE)
}

// tell sends Hello, the replay, Synced, and then what happens, until ctx is done. A slow runtime loses lines of output, nothing else.
func (n *Node) tell(ctx context.Context, f *os.File, replay []wire.Up) error {
	w := bufio.NewWriterSize(f, 32<<10)
	conn := wire.NewConn(struct {
		io.Reader
		io.Writer
	}{nil, w})
	if err := conn.Send(wire.Up{Hello: n.hello()}); err != nil {
		return err
	}
	cursors := map[string]uint64{}
	synced := false
	for ups := replay; ; ups = n.record.take() {
		for _, up := range ups {
			if err := conn.Send(up); err != nil {
				return err
			}
		}
		if err := n.tellOutput(conn, cursors); err != nil {
			return err
		}
		if !synced {
			synced = true
			if err := conn.Send(wire.Up{Synced: &wire.Synced{}}); err != nil {
				return err
			}
		}
		if err := w.Flush(); err != nil {
			return err
		}
		select {
		case <-n.record.wake:
		case <-n.log.Changed():
		case <-ctx.Done():
			return nil
		}
	}
}

// tellOutput sends the lines that the cursors have not passed.
func (n *Node) tellOutput(conn *wire.Conn, cursors map[string]uint64) error {
	for lines := n.log.Next(cursors); len(lines) > 0; lines = n.log.Next(cursors) {
		for i := range lines {
			if err := conn.Send(wire.Up{Output: &lines[i]}); err != nil {
				return err
			}
		}
	}
	return nil
}

// obey does what the runtime asks.
func (n *Node) obey(ctx context.Context, down *wire.Down) {
	switch {
	case down.Console != nil:
		n.log.Status(down.Console.Lines)
	case down.Stage != nil:
		n.record.publish(wire.Up{Stage: down.Stage})
		n.log.Printf("stage %s after %d ms", down.Stage.Name, down.Stage.Milliseconds)
		switch down.Stage.Name {
		case stageReady:
			n.gotReady()
		case stageAPI:
			n.gotAPI()
			// Plugins that start now are waited for.
			time.AfterFunc(max(time.Since(n.began)/2, time.Second), func() { defer crash.Guard(); n.gotReady() })
		}
	case down.Shutdown != nil:
		n.shutdown(*down.Shutdown)
	case down.ResetStorage != nil:
		n.resetStorage(down.ResetStorage)
	case down.LoadModule != nil:
		n.loadModule(*down.LoadModule)
	case down.Start != nil:
		n.command(ctx, n.supervisor.Start, down.Start.Name)
	case down.Stop != nil:
		n.command(ctx, n.supervisor.Stop, down.Stop.Name)
	}
}

// command runs beside the conversation: stopping a process takes a while.
func (n *Node) command(ctx context.Context, do func(context.Context, string) error, name string) {
	n.background.Go(func() {
		defer crash.Guard()
		if err := do(ctx, name); err != nil && ctx.Err() == nil {
			n.log.Printf("%v", err)
		}
	})
}
