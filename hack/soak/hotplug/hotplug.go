// Package hotplug plugs disks into a node and out again, and compares what block-events says with what was done. The soak does it a
// thousand times, the VM test a few times.
package hotplug

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"google.golang.org/protobuf/proto"

	eventspb "github.com/cosi-os/cosi/api/cosi/events/v1alpha1"
	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	storagepb "github.com/cosi-os/cosi/api/cosi/storage/v1alpha1"
	"github.com/cosi-os/cosi/tools/client"
	"github.com/cosi-os/cosi/tools/qemu"
)

// Machine is what a node is plugged into.
type Machine interface {
	Plug(ctx context.Context, d qemu.Disk, port string) error
	Unplug(ctx context.Context, id string) error
}

// Config says what is plugged in, how often.
type Config struct {
	Machine  Machine
	Client   *client.Client
	Port     string // as qemu.VM.Plug takes it
	Dir      string // for the disk's file
	Seed     uint64 // of the pauses
	First    int    // rounds that an earlier run has done
	Rounds   int
	Patience time.Duration // for a disk to appear or to go
}

// Report is what came of it.
type Report struct {
	Done     int
	Events   int
	Failures []string
}

// size is that of the disk, in bytes.
const size = 16 << 20

// Run plugs a disk in and out, Rounds times, until something is wrong or ctx is done.
func Run(ctx context.Context, c Config) Report {
	var r Report
	file := filepath.Join(c.Dir, "hotplug.raw")
	if err := os.WriteFile(file, nil, 0o600); err == nil {
		err = os.Truncate(file, size)
		if err != nil {
			return r.failed(err)
		}
	}
	w, err := watch(ctx, c)
	if err != nil {
		return r.failed(err)
	}
	defer w.close()
	random := rand.New(rand.NewPCG(c.Seed, uint64(c.First)))
	for round := c.First; round < c.First+c.Rounds && ctx.Err() == nil; round++ {
		d := qemu.Disk{ID: fmt.Sprintf("%s-%d", c.Port, round), File: file, Format: "raw"} // QMP tells of a device by its id, once for all
		if err := c.round(ctx, d, w, time.Duration(random.Int64N(int64(50*time.Millisecond)))); err != nil {
			if ctx.Err() != nil {
				return r
			}
			return r.failed(fmt.Errorf("round %d: %w", round, err))
		}
		r.Done++
		r.Events = w.seen()
	}
	return r
}

func (r Report) failed(err error) Report {
	r.Failures = append(r.Failures, err.Error())
	return r
}

// round is one disk, in and out. It fails unless Disks and BlockEvents say just that.
func (c Config) round(ctx context.Context, d qemu.Disk, w *watcher, pause time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, 4*c.Patience)
	defer cancel()
	if err := c.Machine.Plug(ctx, d, c.Port); err != nil {
		return err
	}
	name, err := c.appears(ctx, d.ID)
	if err != nil {
		return err
	}
	if err := w.expect(ctx, "Added", name, c.Patience); err != nil {
		return err
	}
	time.Sleep(pause)
	if err := c.Machine.Unplug(ctx, d.ID); err != nil {
		return err
	}
	if err := w.expect(ctx, "Removed", name, c.Patience); err != nil {
		return err
	}
	return c.goes(ctx, name)
}

// appears waits until Disks has the disk of a serial number, and returns the kernel's name for it.
func (c Config) appears(ctx context.Context, serial string) (name string, err error) {
	ctx, cancel := context.WithTimeout(ctx, c.Patience)
	defer cancel()
	kind, err := c.Client.Kind(ctx, "disks")
	if err != nil {
		return "", err
	}
	err = c.Client.Watch(ctx, kind, "", &resourcepb.WatchOptions{BootstrapContents: true}, func(e *resourcepb.Event) error {
		disk := &storagepb.Disk{}
		if err := proto.Unmarshal(e.GetResource().GetSpec().GetProtoSpec(), disk); err != nil {
			return err
		}
		live := e.GetEventType() == resourcepb.EventType_CREATED || e.GetEventType() == resourcepb.EventType_UPDATED
		if !live || disk.GetSerial() != serial {
			return nil
		}
		if disk.GetSize() != size || disk.GetLogicalBlockSize() == 0 || disk.GetTransport() == "" {
			return fmt.Errorf("Disks has %v; want one of %d bytes, with all its properties", disk, size)
		}
		name = e.GetResource().GetMetadata().GetId()
		return client.ErrStop
	})
	if err != nil {
		return "", fmt.Errorf("disk %s: Disks: %w", serial, err)
	}
	return name, nil
}

// goes waits until Disks has no disk of that name.
func (c Config) goes(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(ctx, c.Patience)
	defer cancel()
	kind, err := c.Client.Kind(ctx, "disks")
	if err != nil {
		return err
	}
	err = c.Client.Watch(ctx, kind, name, nil, func(e *resourcepb.Event) error {
		if e.GetEventType() == resourcepb.EventType_DESTROYED {
			return client.ErrStop
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("disk %s is out, and still in Disks: %w", name, err)
	}
	return nil
}

var errNoMore = errors.New("the watch has ended")

// watcher collects the BlockEvents that say that a disk has come or gone.
type watcher struct {
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
	w := &watcher{events: make(chan *eventspb.BlockEvent, 1024), stop: stop, ended: make(chan struct{})}
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
	if b.GetAction() == "Resynchronised" || b.GetDeviceType() == "disk" && (b.GetAction() == "Added" || b.GetAction() == "Removed") {
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
