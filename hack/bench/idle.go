package main

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	testpb "github.com/cosi-os/cosi/api/cosi/test/v1alpha1"
	"github.com/cosi-os/cosi/hack/gauge"
	"github.com/cosi-os/cosi/tools/client"
	"github.com/cosi-os/cosi/tools/qemu"
	"github.com/cosi-os/cosi/tools/qemu/node"
)

const (
	// gaugeImage is the base image with the plugin gauge.
	gaugeImage = "cosi-bench-amd64"
	// small is the memory of the smallest node, in MiB.
	small = 256
	// settled is how long after the node is ready its memory is looked at.
	settled = time.Minute
	// left is when it is left alone: PID 1 looks at plugins a last time 80 s after their start, and on a slow machine has something new to say of them,
	// for which those wake up that watch PluginStatuses. idleTime is how long.
	left     = 100 * time.Second
	idleTime = 3 * time.Minute
)

// balloon is the device that a node tells of its memory.
const balloon = "/machine/peripheral/balloon"

// idle looks at nodes that have nothing to do: that one of 256 MiB gets ready, the memory that one of 512 MiB needs, what each plugin holds
// alone, and how often it wakes up. The plugin gauge, which looks at the processes, has nodes of its own, one with the plugins of the base image
// and one with all generators.
func idle(ctx context.Context) ([]figure, error) {
	none := func(context.Context, *node.Node, *client.Client) error { return nil }
	if err := with(ctx, image, quiet(small), none); err != nil {
		return nil, fmt.Errorf("%d MiB: %w", small, err)
	}
	var used float64
	err := with(ctx, image, quiet(512), func(ctx context.Context, n *node.Node, _ *client.Client) (err error) {
		if err = sleep(ctx, settled); err != nil {
			return err
		}
		used, err = memoryUsed(ctx, n.VM)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("512 MiB: %w", err)
	}
	base, err := watch(ctx, gaugeImage)
	if err != nil {
		return nil, err
	}
	others, err := watch(ctx, testImage)
	if err != nil {
		return nil, err
	}
	others.Processes = slices.DeleteFunc(others.GetProcesses(), func(p *testpb.GaugeRequestStatus_Process) bool {
		seen := func(other *testpb.GaugeRequestStatus_Process) bool { return other.GetName() == p.GetName() }
		return !strings.HasSuffix(p.GetName(), "-events") || slices.ContainsFunc(base.GetProcesses(), seen)
	})
	figures := []figure{
		{"memory of a node that gets ready", small, "MiB", 256},
		{"memory used, 512 MiB, idle for a minute", used, "MiB", 96},
	}
	return slices.Concat(figures, processes(base), processes(others)), nil
}

// watch has the plugin gauge of an image watch the processes of a node that is left alone.
func watch(ctx context.Context, image string) (gauged *testpb.GaugeRequestStatus, err error) {
	err = with(ctx, image, quiet(512), func(ctx context.Context, _ *node.Node, c *client.Client) (err error) {
		if err = sleep(ctx, left); err != nil {
			return err
		}
		gauged, err = gauge.Measure(ctx, c, "idle", idleTime)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", image, err)
	}
	return gauged, nil
}

// memoryUsed is MemTotal − MemAvailable as the kernel tells the balloon, so that nothing on the node has to look.
func memoryUsed(ctx context.Context, vm *qemu.VM) (float64, error) {
	about := map[string]any{"path": balloon, "property": "guest-stats-polling-interval", "value": 1}
	if err := vm.Monitor.Execute(ctx, "qom-set", about, nil); err != nil {
		return 0, err
	}
	about = map[string]any{"path": balloon, "property": "guest-stats"}
	var told struct {
		Updated int64 `json:"last-update"`
		Stats   struct {
			Total     uint64 `json:"stat-total-memory"`
			Available uint64 `json:"stat-available-memory"`
		}
	}
	for told.Updated == 0 {
		if err := sleep(ctx, time.Second); err != nil {
			return 0, err
		}
		if err := vm.Monitor.Execute(ctx, "qom-get", about, &told); err != nil {
			return 0, err
		}
	}
	if s := told.Stats; s.Available > 0 && s.Available < s.Total {
		return mib(s.Total - s.Available), nil
	}
	return 0, fmt.Errorf("the balloon tells of %d bytes of memory, %d of them available", told.Stats.Total, told.Stats.Available)
}

// processes tells what each process holds alone and how often it woke up, in two ways: what happens within a second is one wake-up, as it
// is to a processor that would sleep; and each wake-up of each thread is one, so that nothing hides behind the first.
func processes(last *testpb.GaugeRequestStatus) []figure {
	minutes := last.GetWatched() / 60
	var figures []figure
	for _, p := range last.GetProcesses() {
		memory, wakes := 5.0, 1.0
		switch p.GetName() {
		case "gauge": // it works
			continue
		case "engine", "runtime": // no plugins
			memory, wakes = 0, 0
		}
		figures = append(figures,
			figure{p.GetName() + ", memory of its own", mib(p.GetPrivateDirty()), "MiB", memory},
			figure{p.GetName() + ", wake-ups a minute, one a second at most", rate(p.GetAwake(), minutes), "", wakes},
			figure{p.GetName() + ", wake-ups of its threads a minute", float64(p.GetWakeups()) / minutes, "", 0})
	}
	return figures
}

// rate is how often a minute something happens that happened at these seconds. What happens just once a minute happens four times in three
// minutes if the first is at their beginning: so it is counted from the first time to the last, which are known to a second.
func rate(at []float64, minutes float64) float64 {
	if len(at) < 2 {
		return float64(len(at)) / minutes
	}
	first, last := at[0], at[len(at)-1]
	return math.Round(10*float64(len(at)-1)/((last-first)/60)) / 10
}

func mib(bytes uint64) float64 { return float64(bytes) / (1 << 20) }

// quiet has a node have so many MiB of memory, and nothing that disturbs it.
func quiet(memory int) func(*qemu.Host, *node.Options) {
	return func(_ *qemu.Host, o *node.Options) {
		o.Memory = memory
		o.Extra = []string{"-device", "virtio-balloon-pci,id=balloon",
			"-set", "netdev.net0.ipv6=off"} // its router's advertisements, every few minutes, are no idleness
	}
}

// with boots an image on a machine that change has made so, waits until the node is ready, and calls f.
func with(ctx context.Context, image string, change func(*qemu.Host, *node.Options), f func(context.Context, *node.Node, *client.Client) error) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	host, err := qemu.Find(ctx, qemu.AMD64)
	if err != nil {
		return err
	}
	o, remove, err := options(image)
	if err != nil {
		return err
	}
	defer remove()
	change(host, &o)
	n, err := node.Start(ctx, host, o)
	if err != nil {
		return err
	}
	defer n.Kill()
	if err := use(ctx, n, f); err != nil {
		return fmt.Errorf("%w\nthe console's last lines:\n%s", err, n.Console.Tail(20))
	}
	return nil
}

// use waits until a node is ready, and calls f.
func use(ctx context.Context, n *node.Node, f func(context.Context, *node.Node, *client.Client) error) error {
	if err := n.WaitTLS(ctx); err != nil {
		return err
	}
	c, err := n.Dial()
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := n.WaitReady(ctx, c); err != nil {
		return err
	}
	return f(ctx, n, c)
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
