// Package host is the runtime's side of the conversation with PID 1 (package wire): it takes the frames about processes, output and the
// boot, and asks PID 1 to show the console or to take the node down.
package host

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/cosi-os/cosi/engine/runtime/node"
	"github.com/cosi-os/cosi/engine/runtime/plugins"
	"github.com/cosi-os/cosi/engine/wire"
)

// Host receives what PID 1 says and tells it what to do.
type Host struct {
	conn  *wire.Conn
	node  *node.Node
	table *plugins.Table
	logs  *Logs
	// module takes what came of an order to load a module.
	module func(*wire.Module)
}

// New returns a Host on conn. Whatever it learns goes to the node, the table and the logs, and to module.
func New(conn *wire.Conn, n *node.Node, t *plugins.Table, l *Logs, module func(*wire.Module)) *Host {
	return &Host{conn: conn, node: n, table: t, logs: l, module: module}
}

// ErrEngineGone ends Receive: PID 1 has closed its end, nobody is left to serve for.
var ErrEngineGone = errors.New("the engine has closed the connection")

// Receive takes frames until the connection ends, with ErrEngineGone when the engine ended it. It never waits for readers of logs, and
// frames that it does not know it passes over.
func (h *Host) Receive(ctx context.Context) error {
	for {
		var up wire.Up
		if err := h.conn.Receive(&up); err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if errors.Is(err, io.EOF) {
				return ErrEngineGone
			}
			return fmt.Errorf("engine: %w", err)
		}
		if err := h.take(ctx, &up); err != nil {
			return err
		}
	}
}

func (h *Host) take(ctx context.Context, up *wire.Up) error {
	switch {
	case up.Hello != nil:
		if up.Hello.Version != wire.Version {
			return fmt.Errorf("the engine speaks version %d of the frames, this runtime %d", up.Hello.Version, wire.Version)
		}
		h.node.Hello(*up.Hello)
	case up.Stage != nil:
		h.node.Stage(*up.Stage)
	case up.Watchdog != nil:
		h.node.Watchdog(*up.Watchdog)
	case up.Module != nil:
		h.module(up.Module)
	case up.Output != nil:
		h.logs.Offer(up.Output)
	case up.Started != nil:
		return h.table.Started(ctx, up.Started)
	case up.Confined != nil:
		return h.table.Confined(ctx, up.Confined)
	case up.Exited != nil:
		return h.table.Exited(ctx, up.Exited)
	}
	return nil
}

// Show replaces the status on the consoles.
func (h *Host) Show(lines []string) error {
	return h.conn.Send(wire.Down{Console: &wire.Console{Lines: lines}})
}

// LoadModule has PID 1 load a module. The answer comes as a frame.
func (h *Host) LoadModule(order wire.LoadModule) error {
	return h.conn.Send(wire.Down{LoadModule: &order})
}

// Stage reports a moment of the boot to PID 1, which keeps it for a restarted runtime.
func (h *Host) Stage(s wire.Stage) error {
	return h.conn.Send(wire.Down{Stage: &s})
}
