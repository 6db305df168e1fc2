package network

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	networkpb "github.com/cosi-os/cosi/api/cosi/network/v1alpha1"
	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	"github.com/cosi-os/cosi/plugins/internal/rtnl"
)

// addressWish is an address that a resource, a kernel argument or a lease asks for.
type addressWish struct {
	address
	by *resourcepb.Metadata // nil: not a resource
}

// setAddresses adds the addresses that are wanted and removes ours that are not.
func (p *pass) setAddresses() {
	wishes := p.addressWishes()
	p.wanted = wishes
	wish := func(a address) bool {
		return slices.ContainsFunc(wishes, func(w addressWish) bool { return w.link == a.link && w.prefix == a.prefix })
	}
	// First what goes: were the new address the second of its network, the kernel would take it away with the first.
	for _, a := range p.world.addresses {
		if rtnl.Ours(a.protocol) && !wish(a) && !p.keep(a) {
			p.removal(a.prefix.String(), p.kernel.deleteAddress(a))
		}
	}
	for _, w := range wishes {
		i := slices.IndexFunc(p.world.addresses, func(a address) bool { return w.link == a.link && w.prefix == a.prefix })
		if i >= 0 && same(p.world.addresses[i], w.address) {
			continue
		}
		if err := p.kernel.setAddress(w.address); err != nil {
			p.fail(w.by, refused(fmt.Errorf("add %v to %s: %w", w.prefix, p.linkByIndex(w.link).name, err)))
		}
	}
}

// same reports whether an address is as wanted. Its lifetime is counted in seconds, and some of one has gone by.
func same(is, want address) bool {
	if is.protocol != want.protocol || (is.valid == forever) != (want.valid == forever) {
		return false
	}
	const slack = 1
	return is.valid <= want.valid+min(slack, forever-want.valid) && want.valid <= is.valid+min(slack, forever-is.valid)
}

// keep reports whether an address is of an earlier lease that no server has confirmed or refused yet.
func (p *pass) keep(a address) bool {
	d := p.leased[a.link]
	return a.protocol == rtnl.ProtocolDHCP && d != nil && d.status.Keep
}

// addressWishes lists each address of a link once: the first who asks for it has it.
func (p *pass) addressWishes() []addressWish {
	var wishes []addressWish
	add := func(l link, prefix netip.Prefix, protocol int, valid uint32, by *resourcepb.Metadata) {
		if !slices.ContainsFunc(wishes, func(w addressWish) bool { return w.link == l.index && w.prefix == prefix }) {
			wishes = append(wishes, addressWish{address{link: l.index, prefix: prefix, protocol: protocol, valid: valid}, by})
		}
	}
	for _, r := range p.inputs.addresses {
		prefix, err := netip.ParsePrefix(r.Spec.GetAddress())
		if err != nil {
			p.fail(r.Metadata, outcome{"Invalid", fmt.Sprintf("%q is not an address with a prefix length", r.Spec.GetAddress())})
			continue
		}
		if l, o := p.one(r.Spec.GetLink()); o.ok() {
			p.targets[key(r.Metadata)] = l
			add(l, prefix, rtnl.ProtocolStatic, forever, r.Metadata)
		} else {
			p.fail(r.Metadata, o)
		}
	}
	for _, a := range p.arguments.interfaces {
		if links := selectLinks(a.selector(), p.world.links); a.address.IsValid() && len(links) == 1 {
			add(links[0], a.address, rtnl.ProtocolCmdline, forever, nil)
		}
	}
	for _, l := range p.world.links {
		if d := p.leased[l.index]; d != nil && d.status.Lease != nil {
			add(l, d.status.Lease.Address, rtnl.ProtocolDHCP, secondsUntil(d.status.Lease.Expires), nil)
		}
	}
	return wishes
}

func secondsUntil(end time.Time) uint32 {
	if end.IsZero() {
		return forever
	}
	return uint32(max(1, time.Until(end)/time.Second))
}

// addressStatuses answer for each Address and for every other address of the node.
func (p *pass) addressStatuses() []output {
	var all []output
	named := map[address]bool{}
	for _, r := range p.inputs.addresses {
		prefix, _ := netip.ParsePrefix(r.Spec.GetAddress())
		l := p.targets[key(r.Metadata)]
		i := slices.IndexFunc(p.world.addresses, func(a address) bool { return a.link == l.index && a.prefix == prefix })
		o := p.outcomes[key(r.Metadata)]
		if i >= 0 {
			named[p.world.addresses[i]] = true
			o = addressOutcome(p.world.addresses[i], o)
		} else if o.ok() {
			o = outcome{"Missing", "the kernel does not have it"}
		}
		all = append(all, output{typeAddressStatus, r.GetId(), &networkpb.AddressStatus{
			ObservedVersion: r.GetVersion(), Ready: o.ok(), Reason: o.reason, Message: o.message,
			Address: r.Spec.GetAddress(), LinkName: l.name, Source: "static",
		}, r.Metadata})
	}
	ids := map[string]bool{}
	for _, r := range p.inputs.addresses {
		ids[r.GetId()] = true
	}
	for _, a := range p.world.addresses {
		if named[a] {
			continue
		}
		l := p.linkByIndex(a.link)
		id := fmt.Sprintf("%s-%v", l.name, a.prefix.Addr())
		if ids[id] { // one address with two prefix lengths, or an Address that has the name
			id = fmt.Sprintf("%s-%d", id, a.prefix.Bits())
		}
		ids[id] = true
		o := addressOutcome(a, outcome{})
		all = append(all, output{typeAddressStatus, id, &networkpb.AddressStatus{
			Ready: o.ok(), Reason: o.reason, Message: o.message, Address: a.prefix.String(), LinkName: l.name, Source: source(a.protocol),
		}, nil})
	}
	return all
}

func addressOutcome(a address, o outcome) outcome {
	switch {
	case !o.ok():
		return o
	case a.duplicate:
		return outcome{"Duplicate", "another host has it"}
	case a.tentative:
		return outcome{"Tentative", "the kernel checks that no other host has it"}
	}
	return outcome{}
}
