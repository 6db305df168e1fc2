package linkevents

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"golang.org/x/sys/unix"

	eventspb "github.com/cosi-os/cosi/api/cosi/events/v1alpha1"
	"github.com/cosi-os/cosi/plugins/internal/rtnl"
)

// change is an event without a time, and what the kernel may have rung about: the likeliest first.
type change struct {
	event *eventspb.LinkEvent
	about []subject
}

// since returns what is different from before, but for what is no event. A speed that is not known is the last that was: without a carrier
// there is none.
func (now world) since(before world) []change {
	var all []change
	for _, index := range slices.Sorted(maps.Keys(before.links)) {
		if was := before.links[index]; now.links[index].name == "" && !was.ours {
			all = append(all, linkEvent("LinkRemoved", index, was, was.kind, linkChange))
		}
	}
	for _, index := range slices.Sorted(maps.Keys(now.links)) {
		is, was := now.links[index], before.links[index]
		if was.name == "" {
			if !is.ours {
				all = append(all, linkEvent("LinkAdded", index, is, is.kind, linkChange))
			}
			continue
		}
		all = append(all, is.since(was, index)...)
		if is.speed == 0 {
			is.speed = was.speed
			now.links[index] = is
		}
	}
	name := func(index int) string { return cmp.Or(now.links[index].name, before.links[index].name) }
	all = append(all, differ(before.addresses, now.addresses, compareAddresses, func(a address, protocol int, appeared bool) (change, bool) {
		return a.event(name(a.link), protocol, appeared), !rtnl.Ours(protocol) && protocol != addressOfLoopback && protocol != addressOfLink
	})...)
	return append(all, differ(before.routes, now.routes, compareRoutes, func(r route, protocol int, appeared bool) (change, bool) {
		return r.event(name(r.link), protocol, appeared), !rtnl.Ours(protocol) && protocol != unix.RTPROT_KERNEL
	})...)
}

// Who makes addresses by itself: IFAPROT_KERNEL_LO and IFAPROT_KERNEL_LL of include/uapi/linux/if_addr.h.
const (
	addressOfLoopback = 1
	addressOfLink     = 3
)

// differ returns the events of what has gone, and then of what has come. A new owner of the same thing is none.
func differ[K comparable](before, now map[K]int, compare func(a, b K) int, event func(k K, protocol int, appeared bool) (change, bool)) []change {
	var all []change
	add := func(some, others map[K]int, appeared bool) {
		for _, k := range slices.SortedFunc(maps.Keys(some), compare) {
			if _, both := others[k]; both {
				continue
			}
			if c, ok := event(k, some[k], appeared); ok {
				all = append(all, c)
			}
		}
	}
	add(before, now, false)
	add(now, before, true)
	return all
}

// since returns what became of the carrier and the speed. Of the carrier the kernel's counts are the truth: how it is was read a moment before
// them. The last event is what is now.
func (l link) since(before link, index int) []change {
	ups, downs := l.ups-before.ups, l.downs-before.downs
	down := func() []change { return carrierEvent("CarrierDown", index, l, downs, off(l), carrierDown) }
	up := func() []change { return carrierEvent("CarrierUp", index, l, ups, speed(l.speed), carrierUp) }
	var all []change
	if downs > ups || downs == ups && !l.carrier {
		all = append(up(), down()...)
	} else {
		all = append(down(), up()...)
	}
	if l.speed != 0 && before.speed != 0 && l.speed != before.speed {
		all = append(all, linkEvent("SpeedChanged", index, l, fmt.Sprintf("%s, before %s", speed(l.speed), speed(before.speed)), carrierUp, linkChange))
	}
	return all
}

func carrierEvent(action string, index int, l link, count uint32, message string, what what) []change {
	if count == 0 {
		return nil
	}
	c := linkEvent(action, index, l, message, what, linkChange)
	if count > 1 {
		c.event.Count = uint64(count)
	}
	return []change{c}
}

func off(l link) string {
	if l.on {
		return ""
	}
	return "it is switched off"
}

func speed(mbits uint64) string {
	if mbits == 0 {
		return ""
	}
	return fmt.Sprintf("%d Mbit/s", mbits)
}

func linkEvent(action string, index int, l link, message string, about ...what) change {
	c := change{event: &eventspb.LinkEvent{Action: action, Device: l.name, Index: uint32(index), Speed: l.speed, Message: message}}
	for _, w := range about {
		c.about = append(c.about, subject{w, index})
	}
	return c
}

func (a address) event(device string, protocol int, appeared bool) change {
	return change{&eventspb.LinkEvent{
		Action: either(appeared, "AddressAdded", "AddressRemoved"), Device: device, Index: uint32(a.link), Prefix: a.prefix.String(), Protocol: uint32(protocol),
		Message: a.prefix.String(),
	}, []subject{{addresses, a.link}, {linkChange, a.link}}}
}

func compareAddresses(a, b address) int {
	return cmp.Or(cmp.Compare(a.link, b.link), a.prefix.Addr().Compare(b.prefix.Addr()), cmp.Compare(a.prefix.Bits(), b.prefix.Bits()))
}

func (r route) event(device string, protocol int, appeared bool) change {
	e := &eventspb.LinkEvent{
		Action: either(appeared, "RouteAdded", "RouteRemoved"), Device: device, Index: uint32(r.link), Prefix: r.destination.String(),
		Metric: uint32(r.metric), Table: uint32(r.table), Protocol: uint32(protocol), Message: r.destination.String(),
	}
	if r.gateway.IsValid() {
		e.Gateway = r.gateway.String()
		e.Message += " via " + e.Gateway
	}
	return change{e, []subject{{what: routes}, {addresses, r.link}, {linkChange, r.link}}}
}

func compareRoutes(a, b route) int {
	return cmp.Or(cmp.Compare(a.link, b.link), a.destination.Addr().Compare(b.destination.Addr()), cmp.Compare(a.destination.Bits(), b.destination.Bits()),
		cmp.Compare(a.table, b.table), cmp.Compare(a.metric, b.metric), a.gateway.Compare(b.gateway))
}

func either(first bool, a, b string) string {
	if first {
		return a
	}
	return b
}
