package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	eventspb "github.com/cosi-os/cosi/api/cosi/events/v1alpha1"
	machinepb "github.com/cosi-os/cosi/api/cosi/machine/v1alpha1"
	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	storagepb "github.com/cosi-os/cosi/api/cosi/storage/v1alpha1"
	testpb "github.com/cosi-os/cosi/api/cosi/test/v1alpha1"
	"github.com/cosi-os/cosi/hack/gauge"
	"github.com/cosi-os/cosi/hack/soak/hotplug"
	"github.com/cosi-os/cosi/tools/client"
	"github.com/cosi-os/cosi/tools/qemu"
	"github.com/cosi-os/cosi/tools/qemu/node"
)

const (
	// testImage is the base image with what the tests need.
	testImage = "cosi-test-amd64"
	// generator is the one of which the first event is measured.
	generator = "block-events"
	// perSecond is the storm's rate, in events a second; stormTime how long it lasts on a node that can make so many.
	perSecond, stormTime = 10000, 5
	// rests is when a plugin has given back what it does not need any more: 10 s after it has had something to do.
	rests = 15 * time.Second
)

// counted has a node executed so that a nanosecond of its clock is an instruction, or waiting: what it measures of itself does not depend on
// what else the machine does, and is what a processor of 1 GHz with an instruction a cycle would need.
func counted(h *qemu.Host, o *node.Options) {
	h.KVM = false
	o.Extra = append(o.Extra, "-icount", "shift=0")
}

// events measures what the generators cost: how long after the API the first event can be delivered, and what 10,000 a second take, of blocks, and
// of links by eBPF and without it.
func events(ctx context.Context) ([]figure, error) {
	var figures []figure
	boot := func(h *qemu.Host, o *node.Options) {
		counted(h, o)
		o.Boot, o.Extra = node.Kernel, append(o.Extra, hotplug.SCSI.Arguments...)
	}
	err := with(ctx, gaugeImage, boot, func(ctx context.Context, n *node.Node, c *client.Client) (err error) {
		figures, err = firstEvent(ctx, n, c)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("first event: %w", err)
	}
	err = with(ctx, testImage, boot, func(ctx context.Context, _ *node.Node, c *client.Client) error {
		more, err := storm(ctx, c)
		figures = append(figures, more...)
		if err != nil {
			return err
		}
		more, err = linkStorms(ctx, c)
		figures = append(figures, more...)
		return err
	})
	if err != nil {
		return figures, fmt.Errorf("storm: %w", err)
	}
	return figures, nil
}

// stage is what the engine prints when the API is there, of an image with cosi.debug.
var stage = regexp.MustCompile(`stage api after (\d+) ms`)

// firstEvent measures from the API on until block-events hears, and how long the first event then takes to be a resource.
func firstEvent(ctx context.Context, n *node.Node, c *client.Client) ([]figure, error) {
	m, err := n.Console.Wait(ctx, 0, stage)
	if err != nil {
		return nil, err
	}
	api, err := strconv.Atoi(m[1])
	if err != nil {
		return nil, err
	}
	status, machine := &eventspb.GeneratorStatus{}, &machinepb.MachineStatus{}
	if err := until(ctx, c, "generators", generator, status, func() bool { return status.GetMode() == "fentry" }); err != nil {
		return nil, err
	}
	if err := until(ctx, c, "machine", "machine", machine, func() bool { return true }); err != nil {
		return nil, err
	}
	measured, err := gauge.Measure(ctx, c, "hears", 0)
	if err != nil {
		return nil, err
	}
	own, err := process(measured, generator)
	if err != nil {
		return nil, err
	}
	delivered, err := plug(ctx, n, c)
	if err != nil {
		return nil, err
	}
	hears := status.GetSince().AsTime().Sub(machine.GetBooted().AsTime())
	return []figure{
		{"from the API until block-events hears", float64(hears.Milliseconds()) - float64(api), "ms of 1 GHz", 150},
		{"block-events, its processor time until it has heard", float64(own.GetCpuMicroseconds()) / 1000, "ms of 1 GHz", 0},
		{"from the kernel to the resource, the first disk", float64(delivered.Microseconds()) / 1000, "ms of 1 GHz", 0},
	}, nil
}

// plug plugs a disk in, and returns how long after the kernel made it its event was written.
func plug(ctx context.Context, n *node.Node, c *client.Client) (took time.Duration, err error) {
	dir, err := os.MkdirTemp("", "bench")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "disk.raw")
	if err := errors.Join(os.WriteFile(file, nil, 0o600), os.Truncate(file, 1<<20)); err != nil {
		return 0, err
	}
	if err := n.Plug(ctx, qemu.Disk{ID: "first", File: file, Format: "raw"}, hotplug.SCSI.Port); err != nil {
		return 0, err
	}
	kind, err := c.Kind(ctx, "blockevents")
	if err != nil {
		return 0, err
	}
	event := &eventspb.BlockEvent{}
	err = c.Watch(ctx, kind, "", &resourcepb.WatchOptions{BootstrapContents: true}, func(e *resourcepb.Event) error {
		if err := proto.Unmarshal(e.GetResource().GetSpec().GetProtoSpec(), event); err != nil {
			return err
		}
		if event.GetAction() != "Added" || !strings.HasPrefix(event.GetDevice(), "sd") {
			return nil
		}
		took = e.GetResource().GetMetadata().GetCreated().AsTime().Sub(event.GetTime().AsTime())
		return client.ErrStop
	})
	return took, err
}

// storm measures what 10,000 block events a second take, and fails unless the node knows in the end what is so.
func storm(ctx context.Context, c *client.Client) ([]figure, error) {
	if _, err := rage(ctx, c, "first", "events", 1, 0); err != nil {
		return nil, fmt.Errorf("first event: %w", err)
	}
	before, err := gauge.Measure(ctx, c, "before", 0)
	if err != nil {
		return nil, err
	}
	st, err := rage(ctx, c, "storm", "events", perSecond*stormTime, perSecond)
	if err != nil {
		return nil, err
	}
	disk := &storagepb.Disk{}
	if err := until(ctx, c, "disks", st.GetDevice(), disk, func() bool { return disk.GetSize() == st.GetSize() }); err != nil {
		return nil, fmt.Errorf("Disks has %v; want %d bytes: %w", disk, st.GetSize(), err)
	}
	after, err := gauge.Measure(ctx, c, "after", 0)
	if err != nil {
		return nil, err
	}
	status := &eventspb.GeneratorStatus{}
	if err := until(ctx, c, "generators", generator, status, func() bool { return true }); err != nil {
		return nil, err
	}
	rested, err := whenOver(ctx, c, generator, "rested")
	if err != nil {
		return nil, err
	}
	return append(shares(before, after, generator, "block events", perSecond*stormTime), rested,
		figure{"block events a second that the node could make", perSecond * stormTime / st.GetSeconds(), "", 0},
		figure{"of all of them lost by the ring buffer, and looked up", float64(status.GetLost()), "", 0}), nil
}

// whenOver measures what a plugin holds alone when it has given back what a storm took; of the measurements it is the one of that id.
func whenOver(ctx context.Context, c *client.Client, plugin, id string) (figure, error) {
	if err := sleep(ctx, rests); err != nil {
		return figure{}, err
	}
	rested, err := gauge.Measure(ctx, c, id, 0)
	if err != nil {
		return figure{}, err
	}
	own, err := process(rested, plugin)
	return figure{plugin + ", memory of its own, when the storm is over", mib(own.GetPrivateDirty()), "MiB", 5}, err
}

// process is a plugin among those that were measured.
func process(measured *testpb.GaugeRequestStatus, plugin string) (*testpb.GaugeRequestStatus_Process, error) {
	for _, p := range measured.GetProcesses() {
		if p.GetName() == plugin {
			return p, nil
		}
	}
	return nil, fmt.Errorf("no process %q", plugin)
}

// shares tells what a generator used of the processor for so many events of a kind, and the others that have to do with them: as a share of a
// second for perSecond of them, whether the node could make so many in a second or not.
func shares(before, after *testpb.GaugeRequestStatus, generator, kind string, events float64) []figure {
	used := map[string]uint64{}
	for _, p := range before.GetProcesses() {
		used[p.GetName()] = p.GetCpuMicroseconds()
	}
	var figures []figure
	for _, p := range after.GetProcesses() {
		name, target := p.GetName(), 0.0
		switch name {
		case generator:
			target = 20
		case "engine": // its control group is the one above all
			name = "the whole node"
		case "runtime", "storm":
		default:
			continue
		}
		share := 100 * float64(p.GetCpuMicroseconds()-used[p.GetName()]) / 1e6 / (events / perSecond)
		figures = append(figures, figure{name + ", for 10,000 " + kind + " a second", share, "% of 1 GHz", target})
	}
	return figures
}

// rage has the plugin storm make events of a kind, the name of a field of its requests.
func rage(ctx context.Context, c *client.Client, id, kind string, events, rate int) (*testpb.StormRequestStatus, error) {
	st := &testpb.StormRequestStatus{}
	return st, gauge.Ask(ctx, c, "Storm", id, fmt.Sprintf("{%s: %d, per_second: %d}", kind, events, rate), st)
}

// until watches a resource until ok likes its content, which is decoded into spec.
func until(ctx context.Context, c *client.Client, kind, id string, spec proto.Message, ok func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	k, err := c.Kind(ctx, kind)
	if err != nil {
		return err
	}
	err = c.Watch(ctx, k, id, nil, func(e *resourcepb.Event) error {
		if e.GetEventType() == resourcepb.EventType_DESTROYED {
			return nil
		}
		proto.Reset(spec)
		if err := proto.Unmarshal(e.GetResource().GetSpec().GetProtoSpec(), spec); err != nil {
			return err
		}
		if ok() {
			return client.ErrStop
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("%s/%s: %w", kind, id, err)
	}
	return nil
}
