package hotplug

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	eventspb "github.com/cosi-os/cosi/api/cosi/events/v1alpha1"
	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
)

var errNoMore = errors.New("the watch has ended")

// watcher collects the BlockEvents that say what a bus says of a disk, and that some may be missing.
type watcher struct {
	bus    Bus
	events chan *eventspb.BlockEvent
	stop   context.CancelFunc
	ended  chan struct{}
	err    error // why, once ended is closed
	count  int
}

// watch watches from now on.
func watch(ctx context.Context, c Config) (*watcher, error) {
	kind, err := c.Client.Kind(ctx, "blockevents")
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(ctx)
	w := &watcher{bus: c.Bus, events: make(chan *eventspb.BlockEvent, 1024), stop: stop, ended: make(chan struct{})}
	established := make(chan struct{})
	go func() {
		defer close(w.ended)
		w.err = c.Client.Watch(ctx, kind, "", &resourcepb.WatchOptions{BootstrapBookmark: true}, func(e *resourcepb.Event) error {
			if e.GetEventType() == resourcepb.EventType_NOOP {
				close(established)
			}
			return w.take(ctx, e)
		})
	}()
	select {
	case <-established:
		return w, nil
	case <-w.ended:
		stop()
		return nil, fmt.Errorf("watch BlockEvents: %w", w.err)
	}
}

func (w *watcher) take(ctx context.Context, e *resourcepb.Event) error {
	if e.GetEventType() != resourcepb.EventType_CREATED {
		return nil
	}
	b := &eventspb.BlockEvent{}
	if err := proto.Unmarshal(e.GetResource().GetSpec().GetProtoSpec(), b); err != nil {
		return err
	}
	if a := b.GetAction(); a == "Resynchronised" || b.GetDeviceType() == "disk" && (a == w.bus.In || a == w.bus.Out) {
		select {
		case w.events <- b:
		case <-ctx.Done():
		}
	}
	return nil
}

// expect takes the next event, which must say that of the disk: one that is missing, doubled or of another disk fails.
func (w *watcher) expect(ctx context.Context, action, name string, patience time.Duration) error {
	select {
	case e := <-w.events:
		w.count++
		if e.GetAction() != action || e.GetDevice() != name || e.GetCount() > 1 || e.GetBoottimeNs() == 0 {
			return fmt.Errorf("event {%v}; want %s %s, once and with the kernel's time", e, action, name)
		}
		return nil
	case <-time.After(patience):
		return fmt.Errorf("no event %s %s after %v", action, name, patience)
	case <-w.ended:
		return errors.Join(errNoMore, w.err)
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (w *watcher) seen() int { return w.count }

func (w *watcher) close() {
	w.stop()
	<-w.ended
}
