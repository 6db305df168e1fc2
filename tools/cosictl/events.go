package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	"github.com/cosi-os/cosi/api/kinds"
	"github.com/cosi-os/cosi/tools/client"
	"github.com/cosi-os/cosi/tools/internal/commandline"
)

// eventsNamespace is where generators write.
const eventsNamespace = "events"

type eventsCommand struct {
	*app
	format string
	watch  bool
}

func newEvents(a *app) *cobra.Command {
	e := &eventsCommand{app: a}
	cmd := &cobra.Command{
		Use:   "events",
		Short: "Print what happened on the node, of all kinds of events, in one stream",
		Long: `Print what happened on the node: disks that came and went, keys that were pressed, whatever the generators of the node have written, the
oldest first, with the time of the kernel. "cosictl get generators" says how each hears of it.`,
		Example: `  cosictl events
  cosictl events -w
  cosictl events -w -o json | jq -r .resource.spec.device`,
		Args: commandline.Arguments(0, 0),
		RunE: a.withClient(e.run),
	}
	commandline.AddOutput(cmd, &e.format, formatText, formatJSON)
	cmd.Flags().BoolVarP(&e.watch, "watch", "w", false, "go on with new events")
	return cmd
}

// kindEvent is an event of a watch, and the kind that was watched.
type kindEvent struct {
	kind  *kinds.Kind
	event *resourcepb.Event
}

func (e *eventsCommand) run(ctx context.Context, c *client.Client, _ []string) error {
	set, err := c.Kinds(ctx)
	if err != nil {
		return err
	}
	all := slices.DeleteFunc(slices.Clone(set.All()), func(k *kinds.Kind) bool { return k.Namespace() != eventsNamespace })
	if len(all) == 0 {
		return errors.New("the node has no kind of event")
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	group, watching := errgroup.WithContext(ctx)
	seen := make(chan kindEvent)
	for _, k := range all {
		group.Go(func() error {
			return c.Follow(watching, k, "", &resourcepb.WatchOptions{BootstrapContents: true}, e.lost(), func(event *resourcepb.Event) error {
				select {
				case seen <- kindEvent{k, event}:
					return nil
				case <-watching.Done():
					return watching.Err()
				}
			})
		})
	}
	ended := make(chan error, 1)
	go func() { ended <- group.Wait() }()
	err = e.print(seen, ended, len(all))
	if err == nil || errors.Is(err, errAllPrinted) {
		stop()
		<-ended
		return nil
	}
	return interrupted(ctx, err)
}

var errAllPrinted = errors.New("all is printed")

// print sorts what is there by its time, and goes on with what comes. It returns why the watches ended, or that no more is wanted.
func (e *eventsCommand) print(seen <-chan kindEvent, ended <-chan error, kinds int) error {
	var past []kindEvent
	for {
		select {
		case err := <-ended:
			return err
		case s := <-seen:
			switch s.event.GetEventType() {
			case resourcepb.EventType_BOOTSTRAPPED:
				if kinds--; kinds > 0 {
					continue
				}
				slices.SortStableFunc(past, func(a, b kindEvent) int { return happened(a).Compare(happened(b)) })
				for _, p := range past {
					if err := e.line(p); err != nil {
						return err
					}
				}
				if !e.watch {
					return errAllPrinted
				}
			case resourcepb.EventType_CREATED, resourcepb.EventType_UPDATED:
				if kinds > 0 {
					past = append(past, s)
				} else if err := e.line(s); err != nil {
					return err
				}
			}
		}
	}
}

// happened is when: as the generator says, else when it was written.
func happened(s kindEvent) time.Time {
	r := s.event.GetResource()
	if m, err := s.kind.Unmarshal(r.GetSpec().GetProtoSpec()); err == nil {
		if at := timeOf(m); !at.IsZero() {
			return at
		}
	}
	return r.GetMetadata().GetUpdated().AsTime()
}

// line prints one event: its time, kind, and what the kind's columns show.
func (e *eventsCommand) line(s kindEvent) error {
	if e.format == formatJSON {
		return printEvent(e.app, s.kind, s.event)
	}
	cells, err := row(s.kind, s.event.GetResource(), e.now())
	if err != nil {
		return err
	}
	words := []string{happened(s).UTC().Format("2006-01-02T15:04:05.000Z"), s.kind.Definition.GetDisplayType()}
	for i, column := range s.kind.Definition.GetPrintColumns() {
		if text := cells[i+1]; text != "" && column.GetName() != "TIME" {
			words = append(words, text)
		}
	}
	_, err = fmt.Fprintln(e.out, strings.Join(words, "  "))
	return err
}
