// Package hotplug plugs disks into a node and out again, or media into its readers, and compares what block-events says with what was done.
// The soak does it a thousand times, the VM test a few times.
package hotplug

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"google.golang.org/protobuf/proto"

	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	storagepb "github.com/cosi-os/cosi/api/cosi/storage/v1alpha1"
	testpb "github.com/cosi-os/cosi/api/cosi/test/v1alpha1"
	"github.com/cosi-os/cosi/tools/client"
	"github.com/cosi-os/cosi/tools/qemu"
)

// Machine is what disks are plugged into.
type Machine interface {
	Plug(ctx context.Context, d qemu.Disk, port string) error
	Unplug(ctx context.Context, id string) error
	Insert(ctx context.Context, d qemu.Disk, reader string) error
	Eject(ctx context.Context, id, reader string) error
}

// Config says what is plugged in, how often.
type Config struct {
	Machine  Machine
	Client   *client.Client
	Bus      Bus
	Dir      string // for the disk's file
	Seed     uint64 // of the pauses
	First    int    // rounds that an earlier run has done
	Rounds   int
	Patience time.Duration // for a disk to appear or to go
	// Leaks, if not 0, has Run look for what is not given back: the node, which has the plugin gauge, is left alone for that long before it is
	// measured. A plugin that has had nothing to do for 10 seconds gives back what it does not use: in the end it has some times that long.
	Leaks time.Duration
}

// Report is what came of it.
type Report struct {
	Done     int
	Events   int
	Failures []string
	Held     []Held // with Config.Leaks, once there were enough rounds
}

// size is that of the disk, in bytes.
const size = 16 << 20

// Run plugs a disk in and out, Rounds times, until something is wrong or ctx is done. A round that has begun is finished.
func Run(ctx context.Context, c Config) Report {
	over := ctx.Done()
	ctx = context.WithoutCancel(ctx)
	var r Report
	file := filepath.Join(c.Dir, "hotplug.raw")
	if err := os.WriteFile(file, nil, 0o600); err == nil {
		err = os.Truncate(file, size)
		if err != nil {
			return r.failed(err)
		}
	}
	if c.Bus.stays != nil {
		if _, _, err := c.find(ctx, c.Bus.stays); err != nil {
			return r.failed(fmt.Errorf("no %s: %w", c.Bus.Name, err))
		}
		time.Sleep(2 * time.Second) // if it has just come, its event is written after Disks, and is none of a round
	}
	w, err := watch(ctx, c)
	if err != nil {
		return r.failed(err)
	}
	defer w.close()
	var before *testpb.GaugeRequestStatus
	random := rand.New(rand.NewPCG(c.Seed, uint64(c.First)))
	for round := c.First; round < c.First+c.Rounds && !closed(over); round++ {
		if c.Leaks > 0 && r.Done == warm {
			if before, err = c.measure(ctx, "first"); err != nil {
				return r.failed(err)
			}
		}
		d := qemu.Disk{ID: fmt.Sprintf("%s-%d", c.Bus.Name, round), File: file, Format: "raw"} // QMP tells of a device by its id, once for all
		if err := c.round(ctx, d, w, time.Duration(random.Int64N(int64(50*time.Millisecond)))); err != nil {
			return r.failed(fmt.Errorf("round %d: %w", round, err))
		}
		r.Done++
		r.Events = w.seen()
	}
	if before == nil {
		return r
	}
	r.Held, err = settle(before, time.Now().Add(4*c.Patience), func(again int) (*testpb.GaugeRequestStatus, error) {
		return c.measure(ctx, fmt.Sprintf("last-%d", again))
	})
	if err != nil {
		return r.failed(err)
	}
	return r
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func (r Report) failed(err error) Report {
	r.Failures = append(r.Failures, err.Error())
	return r
}

// round is one disk, in and out. It fails unless Disks and BlockEvents say just that.
func (c Config) round(ctx context.Context, d qemu.Disk, w *watcher, pause time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, 4*c.Patience)
	defer cancel()
	if err := c.Bus.in(ctx, c.Machine, d); err != nil {
		return err
	}
	name, err := c.appears(ctx, d.ID)
	if err != nil {
		return err
	}
	if err := w.expect(ctx, c.Bus.In, name, c.Patience); err != nil {
		return err
	}
	time.Sleep(pause)
	if err := c.Bus.out(ctx, c.Machine, d.ID); err != nil {
		return err
	}
	if err := w.expect(ctx, c.Bus.Out, name, c.Patience); err != nil {
		return err
	}
	return c.goes(ctx, name, d.ID)
}

// appears waits until Disks shows the disk of an id, and returns the kernel's name for it.
func (c Config) appears(ctx context.Context, id string) (name string, err error) {
	name, disk, err := c.find(ctx, func(d *storagepb.Disk) bool { return c.Bus.shows(d, id) })
	if err != nil {
		return "", fmt.Errorf("disk %s: %w", id, err)
	}
	if disk.GetSize() != size || disk.GetLogicalBlockSize() == 0 || disk.GetTransport() == "" {
		return "", fmt.Errorf("disk %s: Disks has %v; want one of %d bytes, with all its properties", id, disk, size)
	}
	return name, nil
}

// find waits until Disks has a disk that fits, and returns the kernel's name for it.
func (c Config) find(ctx context.Context, fits func(*storagepb.Disk) bool) (name string, disk *storagepb.Disk, err error) {
	ctx, cancel := context.WithTimeout(ctx, c.Patience)
	defer cancel()
	kind, err := c.Client.Kind(ctx, "disks")
	if err != nil {
		return "", nil, err
	}
	disk = &storagepb.Disk{}
	err = c.Client.Watch(ctx, kind, "", &resourcepb.WatchOptions{BootstrapContents: true}, func(e *resourcepb.Event) error {
		if err := proto.Unmarshal(e.GetResource().GetSpec().GetProtoSpec(), disk); err != nil {
			return err
		}
		live := e.GetEventType() == resourcepb.EventType_CREATED || e.GetEventType() == resourcepb.EventType_UPDATED
		if !live || !fits(disk) {
			return nil
		}
		name = e.GetResource().GetMetadata().GetId()
		return client.ErrStop
	})
	if err != nil {
		return "", nil, fmt.Errorf("Disks: %w", err)
	}
	return name, disk, nil
}

// goes waits until Disks does not show it any more under that name.
func (c Config) goes(ctx context.Context, name, id string) error {
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
		disk := &storagepb.Disk{}
		if err := proto.Unmarshal(e.GetResource().GetSpec().GetProtoSpec(), disk); err != nil {
			return err
		}
		if !c.Bus.shows(disk, id) {
			return client.ErrStop
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("disk %s is out, and still in Disks: %w", name, err)
	}
	return nil
}
