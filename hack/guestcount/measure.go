package guestcount

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/cosi-os/cosi/tools/qemu"
	"github.com/cosi-os/cosi/tools/qemu/node"
)

// Mark is a moment that the console shows.
type Mark struct {
	Name    string
	Pattern *regexp.Regexp
}

// Names of the two moments that every Measurement has.
const (
	TLS   = "tls"   // the first TLS answer on the node's port
	Ready = "ready" // the first authenticated Get that returns MachineStatuses with ready = true
)

// Marks splits the boot of our images.
func Marks(b node.Boot) []Mark {
	marks := []Mark{
		{"engine", regexp.MustCompile(`(?m)^engine: COSI`)},
		{"user data", regexp.MustCompile(`(?m)^userdata: fw_cfg`)},
		{"api", listening},
	}
	if b != node.UEFI { // QEMU's own loader and GRUB say nothing
		return marks
	}
	return append([]Mark{{"firmware", regexp.MustCompile(`EFI stub:`)}}, marks...)
}

// Event is a moment with what it took from power-on.
type Event struct {
	Name         string
	Wall         time.Duration
	Instructions uint64
}

// Measure boots o's image with the counter until it is ready, and returns the events in their
// order. It fails if the console does not show one of the marks. cache is where the plugin is kept.
func Measure(ctx context.Context, h *qemu.Host, cache string, o node.Options, marks []Mark) ([]Event, error) {
	plugin, err := build(ctx, cache)
	if err != nil {
		return nil, err
	}
	c, err := newCounter()
	if err != nil {
		return nil, err
	}
	defer c.close()
	o.Plugin = plugin + ",socket=" + c.socket()
	n, err := node.Start(ctx, h, o)
	if err != nil {
		return nil, err
	}
	defer n.Kill()
	if err := c.accept(); err != nil {
		return nil, err
	}
	events, err := watch(ctx, n, c, marks)
	if err != nil {
		return nil, fmt.Errorf("%s: %w\nthe console's last lines:\n%s", o.Image, err, n.Console.Tail(20))
	}
	return events, nil
}

// late is how long the console may stay behind a node that is ready.
const late = 10 * time.Second

// watch records the events of n until it is ready.
func watch(ctx context.Context, n *node.Node, c *counter, marks []Mark) ([]Event, error) {
	seen := make(chan Event, len(marks)+2)
	record := func(name string) error {
		count, err := c.read()
		if err == nil {
			seen <- Event{name, time.Since(n.Started), count}
		}
		return err
	}
	looking, stop := context.WithCancel(ctx)
	defer stop()
	var g errgroup.Group
	for _, m := range marks {
		g.Go(func() error {
			if _, err := n.Console.Wait(looking, 0, m.Pattern); err != nil {
				return nil // it was not shown: boot tells why, if the boot failed, and unseen if it did not
			}
			return record(m.Name)
		})
	}
	g.Go(func() error {
		err := boot(ctx, n, record)
		if err != nil {
			stop()
		}
		time.AfterFunc(late, stop)
		return err
	})
	err := g.Wait()
	close(seen)
	var events []Event
	for e := range seen {
		events = append(events, e)
	}
	if err == nil {
		err = unseen(marks, events)
	}
	slices.SortStableFunc(events, func(a, b Event) int { return cmp.Compare(a.Instructions, b.Instructions) })
	return events, err
}

// unseen fails if a mark is not among the events, and names each that is not: what is counted from mark to mark would be wrong.
func unseen(marks []Mark, events []Event) error {
	var problems []error
	for _, m := range marks {
		if !slices.ContainsFunc(events, func(e Event) bool { return e.Name == m.Name }) {
			problems = append(problems, fmt.Errorf("%s: the node is ready, and the console has not shown %q", m.Name, m.Pattern))
		}
	}
	return errors.Join(problems...)
}

// listening is what a node prints when its API listens.
var listening = regexp.MustCompile(`stage api after`)

// boot asks for the API once the console says that it listens: connections made before that would be answered all at once, and the
// node's work for them be counted.
func boot(ctx context.Context, n *node.Node, record func(string) error) error {
	if _, err := n.Console.Wait(ctx, 0, listening); err != nil {
		return err
	}
	if err := n.WaitTLS(ctx); err != nil {
		return err
	}
	if err := record(TLS); err != nil {
		return err
	}
	client, err := n.Dial()
	if err != nil {
		return err
	}
	defer client.Close()
	if _, err := n.WaitReady(ctx, client); err != nil {
		return err
	}
	return record(Ready)
}
