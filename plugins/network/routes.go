package network

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	networkpb "github.com/cosi-os/cosi/api/cosi/network/v1alpha1"
	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	"github.com/cosi-os/cosi/plugins/internal/rtnl"
)

// routeWish is a route that a resource, a kernel argument or a lease asks for.
type routeWish struct {
	route
	by *resourcepb.Metadata // nil: not a resource
}

// metricDHCP is the metric of leased routes, plus the link's index: behind static routes, and the links' default routes side by side.
const metricDHCP = 1024

// setRoutes adds the routes that are wanted and removes ours that are not.
func (p *pass) setRoutes() {
	wishes := p.routeWishes()
	for _, r := range p.world.routes {
		wanted := slices.ContainsFunc(wishes, func(w routeWish) bool { return w.key() == r.key() })
		if !rtnl.Ours(r.protocol) || wanted || r.protocol == rtnl.ProtocolDHCP && p.keepRoute(r) {
			continue
		}
		// A route may have gone with its address.
		if err := p.kernel.deleteRoute(r); err != nil && !errors.Is(err, unix.ESRCH) {
			p.removal("route to "+r.destination.String(), err)
		}
	}
	for _, w := range wishes {
		p.setRoute(w)
	}
}

func (p *pass) keepRoute(r route) bool {
	d := p.leased[r.link]
	return d != nil && d.status.Keep
}

func (p *pass) setRoute(w routeWish) {
	replace := false
	for _, r := range p.world.routes {
		if r == w.route {
			return
		}
		replace = replace || r.key() == w.key() && rtnl.Ours(r.protocol)
	}
	l := p.linkByIndex(w.link)
	if !l.up {
		p.fail(w.by, outcome{"LinkDown", l.name + " is not up"})
		return
	}
	onLink := w.gateway.IsValid() && !w.gateway.IsLinkLocalUnicast() && !p.reaches(w.link, w.gateway)
	if err := p.kernel.setRoute(w.route, onLink, replace); err != nil {
		p.fail(w.by, refused(fmt.Errorf("add route to %v: %w", w.destination, err)))
	}
}

// reaches reports whether a link has an address in the network of gateway, or is to have one.
func (p *pass) reaches(index int, gateway netip.Addr) bool {
	contains := func(a address) bool { return a.link == index && a.prefix.Masked().Contains(gateway) }
	return slices.ContainsFunc(p.world.addresses, contains) ||
		slices.ContainsFunc(p.wanted, func(w addressWish) bool { return contains(w.address) })
}

// routeWishes lists each route once: the first who asks for it has it, resources before kernel arguments before leases.
func (p *pass) routeWishes() []routeWish {
	var wishes []routeWish
	add := func(r route, by *resourcepb.Metadata) {
		if r.destination.Addr().Is6() && r.metric == 0 {
			r.metric = metricIPv6
		}
		if !slices.ContainsFunc(wishes, func(w routeWish) bool { return w.key() == r.key() }) {
			wishes = append(wishes, routeWish{r, by})
		} else if by != nil {
			p.fail(by, outcome{"Conflict", "another Route has this destination and metric"})
		}
	}
	for _, r := range p.inputs.routes {
		wish, o := p.routeWish(r.Spec)
		if !o.ok() {
			p.fail(r.Metadata, o)
			continue
		}
		p.targets[key(r.Metadata)] = p.linkByIndex(wish.link)
		add(wish, r.Metadata)
	}
	for _, a := range p.arguments.interfaces {
		if links := selectLinks(a.selector(), p.world.links); a.gateway.IsValid() && len(links) == 1 {
			add(route{link: links[0].index, destination: defaultFor(a.gateway), gateway: a.gateway, protocol: rtnl.ProtocolCmdline}, nil)
		}
	}
	for _, l := range p.world.links {
		d := p.leased[l.index]
		if d == nil || d.status.Lease == nil || d.ignoreRoutes {
			continue
		}
		for _, r := range d.status.Lease.Routes {
			add(route{l.index, r.Destination, r.Gateway, metricDHCP + l.index, rtnl.ProtocolDHCP}, nil)
		}
	}
	return wishes
}

// routeWish makes a route of a Route. Without a link it is the one whose network the gateway is in.
func (p *pass) routeWish(spec *networkpb.Route) (route, outcome) {
	r := route{metric: int(spec.GetMetric()), protocol: rtnl.ProtocolStatic}
	if text := spec.GetGateway(); text != "" {
		gateway, err := netip.ParseAddr(text)
		if err != nil || gateway.Zone() != "" {
			return r, outcome{"Invalid", fmt.Sprintf("%q is not the address of a gateway", text)}
		}
		r.gateway = gateway.Unmap()
	}
	if text := spec.GetDestination(); text != "" {
		destination, err := netip.ParsePrefix(text)
		if err != nil {
			return r, outcome{"Invalid", fmt.Sprintf("%q is not a prefix", text)}
		}
		r.destination = destination.Masked()
	} else if r.gateway.IsValid() {
		r.destination = defaultFor(r.gateway)
	} else {
		r.destination = defaultFor(netip.IPv4Unspecified())
	}
	if r.gateway.IsValid() && r.gateway.Is4() != r.destination.Addr().Is4() {
		return r, outcome{"Invalid", "destination and gateway are of two families"}
	}
	if spec.GetLink() != nil {
		l, o := p.one(spec.GetLink())
		r.link = l.index
		return r, o
	}
	for _, l := range p.world.links {
		if r.gateway.IsValid() && p.reaches(l.index, r.gateway) {
			r.link = l.index
			return r, outcome{}
		}
	}
	return r, outcome{"NoLink", "no link has an address in the gateway's network; name one"}
}

// routeStatuses answer for each Route and for every other route of the main table.
func (p *pass) routeStatuses() []output {
	var all []output
	named := map[route]bool{}
	ids := map[string]bool{}
	for _, r := range p.inputs.routes {
		o := p.outcomes[key(r.Metadata)]
		wish, _ := p.routeWish(r.Spec)
		if wish.destination.Addr().Is6() && wish.metric == 0 {
			wish.metric = metricIPv6
		}
		if o.ok() && !slices.Contains(p.world.routes, wish) {
			o = outcome{"Missing", "the kernel does not have it"}
		}
		named[wish] = o.ok()
		ids[r.GetId()] = true
		status := routeStatus(wish, p.targets[key(r.Metadata)])
		status.ObservedVersion, status.Ready, status.Reason, status.Message = r.GetVersion(), o.ok(), o.reason, o.message
		all = append(all, output{typeRouteStatus, r.GetId(), status, r.Metadata})
	}
	for _, r := range p.world.routes {
		if named[r] {
			continue
		}
		l := p.linkByIndex(r.link)
		id := routeID(r, l)
		if ids[id] {
			continue
		}
		ids[id] = true
		status := routeStatus(r, l)
		status.Ready = true
		all = append(all, output{typeRouteStatus, id, status, nil})
	}
	return all
}

func routeStatus(r route, l link) *networkpb.RouteStatus {
	status := &networkpb.RouteStatus{LinkName: l.name, Metric: uint32(r.metric), Source: source(r.protocol)}
	if r.destination.IsValid() {
		status.Destination = r.destination.String()
	}
	if r.gateway.IsValid() {
		status.Gateway = r.gateway.String()
	}
	return status
}

// routeID is LINK-DESTINATION-METRIC, with no slash in it: "eth0-default-1026", "eth0-192.0.2.0-24-0".
func routeID(r route, l link) string {
	destination := fmt.Sprintf("%v-%d", r.destination.Addr(), r.destination.Bits())
	if r.destination.Bits() == 0 {
		destination = "default"
		if r.destination.Addr().Is6() {
			destination = "default6"
		}
	}
	return fmt.Sprintf("%s-%s-%d", l.name, destination, r.metric)
}
