package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	eventspb "github.com/cosi-os/cosi/api/cosi/events/v1alpha1"
	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	testpb "github.com/cosi-os/cosi/api/cosi/test/v1alpha1"
	"github.com/cosi-os/cosi/hack/gauge"
	"github.com/cosi-os/cosi/tools/client"
)

const linkEvents = "link-events"

// linkStorms measures what 10,000 link events a second take, by eBPF, and by netlink without the right to that.
func linkStorms(ctx context.Context, c *client.Client) ([]figure, error) {
	figures, err := linkStorm(ctx, c, "fentry")
	if err != nil {
		return figures, fmt.Errorf("links: %w", err)
	}
	if err := gauge.Ask(ctx, c, "Gauge", "deprive", "{kill: "+linkEvents+", without: [CAP_BPF]}", &testpb.GaugeRequestStatus{}); err != nil {
		return figures, err
	}
	more, err := linkStorm(ctx, c, "netlink")
	if err != nil {
		err = fmt.Errorf("links: %w", err)
	}
	return append(figures, more...), err
}

// linkStorm measures it in a mode, and fails unless the newest events tell in the end what is so.
func linkStorm(ctx context.Context, c *client.Client, mode string) ([]figure, error) {
	before, err := quietLinks(ctx, c, mode)
	if err != nil {
		return nil, err
	}
	used, err := gauge.Measure(ctx, c, mode+"-before", 0)
	if err != nil {
		return nil, err
	}
	// Of four changes an address is there after the first three, a route after the second alone.
	const changes = perSecond*stormTime/4*4 + 2
	st, err := rage(ctx, c, mode, "link_events", changes, perSecond)
	if err != nil {
		return nil, err
	}
	after, err := quietLinks(ctx, c, mode)
	if err != nil {
		return nil, err
	}
	usedSince, err := gauge.Measure(ctx, c, mode+"-after", 0)
	if err != nil {
		return nil, err
	}
	if err := newestOfLinks(ctx, c); err != nil {
		return nil, err
	}
	rested, err := whenOver(ctx, c, linkEvents, mode+"-rested")
	if err != nil {
		return nil, err
	}
	if _, err := rage(ctx, c, mode+"-end", "link_events", 2, 0); err != nil { // the next storm begins as this one did
		return nil, err
	}
	// The kernel announces more than was changed.
	lost := float64(after.GetLost() - before.GetLost())
	announced := float64(after.GetRings()-before.GetRings()) + lost
	kind := "link events by " + mode
	return append(shares(used, usedSince, linkEvents, kind, announced), rested,
		figure{kind + " a second that the node could make", announced / st.GetSeconds(), "", 0},
		figure{"of all of them lost, and looked up", lost, "", 0}), nil
}

// quietLinks waits until link-events hears in a mode, and has heard nothing for a second.
func quietLinks(ctx context.Context, c *client.Client, mode string) (*eventspb.GeneratorStatus, error) {
	status := &eventspb.GeneratorStatus{}
	if err := until(ctx, c, "generators", linkEvents, status, func() bool { return status.GetMode() == mode }); err != nil {
		return nil, err
	}
	for {
		if err := sleep(ctx, time.Second); err != nil {
			return nil, err
		}
		before := status
		status = &eventspb.GeneratorStatus{}
		if err := until(ctx, c, "generators", linkEvents, status, func() bool { return true }); err != nil {
			return nil, err
		}
		if proto.Equal(before, status) {
			return status, nil
		}
	}
}

// newestOfLinks fails unless the newest events of the address and the route that the storm changes say that they are there.
func newestOfLinks(ctx context.Context, c *client.Client) error {
	kind, err := c.Kind(ctx, "linkevents")
	if err != nil {
		return err
	}
	all, err := c.List(ctx, kind)
	if err != nil {
		return err
	}
	slices.SortFunc(all, func(a, b *resourcepb.Resource) int {
		return strings.Compare(a.GetMetadata().GetId(), b.GetMetadata().GetId())
	})
	newest := map[string]string{} // the action, by prefix
	for _, r := range all {
		e := &eventspb.LinkEvent{}
		if err := proto.Unmarshal(r.GetSpec().GetProtoSpec(), e); err != nil {
			return err
		}
		newest[e.GetPrefix()] = e.GetAction()
	}
	for prefix, want := range map[string]string{"203.0.113.7/32": "AddressAdded", "198.51.100.128/25": "RouteAdded"} {
		if newest[prefix] != want {
			return fmt.Errorf("the newest event of %s is %q; want %q", prefix, newest[prefix], want)
		}
	}
	return nil
}
