package main

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	eventspb "github.com/cosi-os/cosi/api/cosi/events/v1alpha1"
	powerpb "github.com/cosi-os/cosi/api/cosi/power/v1alpha1"
	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	"github.com/cosi-os/cosi/hack/gauge"
	"github.com/cosi-os/cosi/tools/client"
	"github.com/cosi-os/cosi/tools/qemu"
	"github.com/cosi-os/cosi/tools/qemu/node"
)

const (
	// presses is how often the power button is pressed, apart how long after each other, on the node's clock: one that comes sooner than 5 s after
	// another overrides who blocks that.
	presses, apart = 20, 6 * time.Second
	// blocker keeps the node up.
	blocker = `{mode: BLOCK, holder: the benchmark, reason: it presses the button again, lease: 30m}`
)

// press is one of the power button. The first two are on the node's clock, the last on ours.
type press struct {
	written  time.Duration // from the kernel to the event, which the runtime sends then
	answered time.Duration // from the kernel to the request of the plugin power, which has been sent the event before
	came     time.Duration // from QEMU's monitor to a watcher outside
}

// power measures how long after the kernel's bell for the power button its event is sent, in instructions, and how long it takes to be seen
// from outside.
func power(ctx context.Context) ([]figure, error) {
	boot := func(h *qemu.Host, o *node.Options) {
		counted(h, o)
		o.Boot = node.Kernel
	}
	var all []press
	err := with(ctx, gaugeImage, boot, func(ctx context.Context, n *node.Node, c *client.Client) (err error) {
		all, err = pressed(ctx, n, c)
		return err
	})
	if err != nil {
		return nil, err
	}
	return pressFigures(all), nil
}

func pressFigures(all []press) []figure {
	var figures []figure
	for _, f := range []struct {
		name, unit string
		of         func(press) time.Duration
	}{
		{"power button, from the kernel to the event that is sent", "ms of 1 GHz", func(p press) time.Duration { return p.written }},
		{"power button, from the kernel to what plugin power asks for", "ms of 1 GHz", func(p press) time.Duration { return p.answered }},
		{"power button, from QEMU to a watcher outside", "ms", func(p press) time.Duration { return p.came }},
	} {
		var took []time.Duration
		for _, p := range all {
			took = append(took, f.of(p))
		}
		slices.Sort(took)
		figures = append(figures,
			figure{fmt.Sprintf("%s, median of %d", f.name, len(took)), milliseconds(took[len(took)/2]), f.unit, 0},
			figure{f.name + ", the longest", milliseconds(took[len(took)-1]), f.unit, 0})
	}
	return figures
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// coldPlugged is what the engine prints when the drivers of what was there at the start are loaded, that of the button too, of an image with
// cosi.debug.
var coldPlugged = regexp.MustCompile(`stage cold-plugged after`)

// pressed presses the button of a node that hears of it and is kept up.
func pressed(ctx context.Context, n *node.Node, c *client.Client) ([]press, error) {
	if _, err := n.Console.Wait(ctx, 0, coldPlugged); err != nil {
		return nil, err
	}
	status := &eventspb.GeneratorStatus{}
	if err := until(ctx, c, "generators", "power-events", status, func() bool { return status.GetMode() == "fentry" }); err != nil {
		return nil, err
	}
	if err := block(ctx, c); err != nil {
		return nil, err
	}
	told, err := powerEvents(ctx, c)
	if err != nil {
		return nil, err
	}
	var all []press
	for number := 1; number <= presses; number++ {
		p, err := pressOnce(ctx, n, c, told, fmt.Sprintf("press-%d", number))
		if err != nil {
			return nil, fmt.Errorf("press %d: %w", number, err)
		}
		all = append(all, p)
	}
	return all, nil
}

// pressOnce presses the button, and waits until it may be pressed again.
func pressOnce(ctx context.Context, n *node.Node, c *client.Client, told <-chan *resourcepb.Resource, id string) (press, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	began := time.Now()
	if err := n.Monitor.Execute(ctx, "system_powerdown", nil, nil); err != nil {
		return press{}, err
	}
	var event *resourcepb.Resource
	select {
	case event = <-told:
	case <-ctx.Done():
		return press{}, fmt.Errorf("no event: %w", ctx.Err())
	}
	came := time.Since(began)
	if err := sleep(ctx, time.Second); err != nil { // the plugin power has answered meanwhile, undisturbed
		return press{}, err
	}
	if _, err := gauge.Measure(ctx, c, id, apart); err != nil {
		return press{}, err
	}
	p, err := measured(ctx, c, event)
	p.came = came
	return p, err
}

// block has the node refuse to go down.
func block(ctx context.Context, c *client.Client) error {
	kind, err := c.Kind(ctx, "shutdowninhibitors")
	if err != nil {
		return err
	}
	_, r, err := c.Apply(ctx, kind, &resourcepb.Resource{
		Metadata: &resourcepb.Metadata{Namespace: kind.Namespace(), Type: kind.Type(), Id: "bench", Version: "1", Phase: "running"},
		Spec:     &resourcepb.Spec{YamlSpec: blocker},
	})
	if err != nil {
		return err
	}
	return c.Wait(ctx, kind, "bench", r.GetMetadata().GetVersion())
}

// powerEvents tells of each that is written from now on, until ctx is done.
func powerEvents(ctx context.Context, c *client.Client) (<-chan *resourcepb.Resource, error) {
	kind, err := c.Kind(ctx, "powerevents")
	if err != nil {
		return nil, err
	}
	told, established, ended := make(chan *resourcepb.Resource, presses), make(chan struct{}), make(chan error, 1)
	go func() {
		ended <- c.Watch(ctx, kind, "", &resourcepb.WatchOptions{BootstrapBookmark: true}, func(e *resourcepb.Event) error {
			switch e.GetEventType() {
			case resourcepb.EventType_NOOP:
				close(established)
			case resourcepb.EventType_CREATED:
				told <- e.GetResource()
			}
			return nil
		})
	}()
	select {
	case <-established:
		return told, nil
	case err := <-ended:
		return nil, err
	}
}

// measured looks at an event and what has come of it.
func measured(ctx context.Context, c *client.Client, event *resourcepb.Resource) (press, error) {
	e := &powerpb.PowerEvent{}
	if err := proto.Unmarshal(event.GetSpec().GetProtoSpec(), e); err != nil {
		return press{}, err
	}
	if e.GetAction() != "PowerButton" || e.GetCount() > 1 {
		return press{}, fmt.Errorf("the event is %v", e)
	}
	kind, err := c.Kind(ctx, "shutdownrequests")
	if err != nil {
		return press{}, err
	}
	request, err := c.Get(ctx, kind, "power-button")
	if err != nil {
		return press{}, err
	}
	rang := e.GetTime().AsTime()
	p := press{written: event.GetMetadata().GetCreated().AsTime().Sub(rang), answered: request.GetMetadata().GetUpdated().AsTime().Sub(rang)}
	if p.written < 0 || p.answered < p.written {
		return press{}, fmt.Errorf("rang at %s, was written %s and answered %s later", rang, p.written, p.answered)
	}
	return p, nil
}
