package network

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	networkpb "github.com/cosi-os/cosi/api/cosi/network/v1alpha1"
	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	"github.com/cosi-os/cosi/plugins/internal/rtnl"
)

// vlanWish is a VLAN link that a Link or a kernel argument asks for.
type vlanWish struct {
	name   string
	parent link
	id     int
	by     *resourcepb.Metadata // nil: a kernel argument
}

// makeVLANs makes the VLAN links that are wanted and removes ours that are not.
func (p *pass) makeVLANs() {
	wishes := p.vlanWishes()
	var missing []vlanWish
	for _, w := range wishes {
		l, there := p.linkNamed(w.name)
		switch {
		case !there:
			missing = append(missing, w)
		case l.kind == kindVLAN && l.parent == w.parent.index && l.vlan == w.id:
		case l.kind == kindVLAN && l.group == rtnl.GroupVLAN:
			if err := p.kernel.deleteLink(l); err != nil {
				p.fail(w.by, refused(fmt.Errorf("replace %s: %w", w.name, err)))
				continue
			}
			missing = append(missing, w)
		default:
			p.fail(w.by, outcome{"Conflict", fmt.Sprintf("there is another link with the name %s (%s)", w.name, l.kind)})
		}
	}
	// What goes must go first: a parent has one VLAN of an id.
	for _, l := range p.world.links {
		wanted := slices.ContainsFunc(wishes, func(w vlanWish) bool { return w.name == l.name })
		if l.kind == kindVLAN && l.group == rtnl.GroupVLAN && !wanted {
			p.removal(l.name, p.kernel.deleteLink(l))
		}
	}
	for _, w := range missing {
		if err := p.kernel.addVLAN(w.name, w.parent.index, w.id); err != nil {
			err = fmt.Errorf("make VLAN %s on %s: %w", w.name, w.parent.name, err)
			p.fail(w.by, refused(err))
			if errors.Is(err, unix.EOPNOTSUPP) { // PID 1 loads 8021q when it has time
				p.stuck = append(p.stuck, err)
			}
		}
	}
}

// vlanWishes lists each name once: the first who asks for it has it, resources before kernel arguments.
func (p *pass) vlanWishes() []vlanWish {
	var wishes []vlanWish
	add := func(w vlanWish) {
		switch {
		case len(w.name) > 15:
			p.fail(w.by, outcome{"Invalid", fmt.Sprintf("%s is too long for a link's name; give the VLAN one", w.name)})
		case slices.ContainsFunc(wishes, func(o vlanWish) bool { return o.name == w.name }):
			if w.by != nil {
				p.fail(w.by, outcome{"Conflict", fmt.Sprintf("another Link asks for %s", w.name)})
			}
		default:
			wishes = append(wishes, w)
		}
	}
	for _, r := range p.inputs.links {
		if r.Spec.GetVlan() == nil {
			continue
		}
		parent, o := p.one(r.Spec.GetLink())
		if !o.ok() {
			p.fail(r.Metadata, o)
			continue
		}
		add(vlanWish{vlanName(r.Spec, parent), parent, int(r.Spec.GetVlan().GetId()), r.Metadata})
	}
	for _, a := range p.arguments.vlans {
		if parent, ok := p.linkNamed(a.parent); ok {
			add(vlanWish{a.name, parent, a.id, nil})
		} else {
			p.note(fmt.Sprintf("kernel argument vlan=%s:%s: there is no link named %[2]s", a.name, a.parent))
		}
	}
	return wishes
}

func vlanName(spec *networkpb.Link, parent link) string {
	if name := spec.GetVlan().GetName(); name != "" {
		return name
	}
	return fmt.Sprintf("%s.%d", parent.name, spec.GetVlan().GetId())
}

func (p *pass) linkNamed(name string) (link, bool) {
	i := slices.IndexFunc(p.world.links, func(l link) bool { return l.name == name })
	if i < 0 {
		return link{}, false
	}
	return p.world.links[i], true
}

// raiseLinks brings up the loopback link, every physical link (before that none shows whether it has a carrier), our VLANs, and
// whatever a Link names. It finds for each Link the link that it is about.
func (p *pass) raiseLinks() {
	wanted := map[int]*resourcepb.Metadata{}
	for _, r := range p.inputs.links {
		for _, l := range p.linksOf(r.Metadata, r.Spec) {
			if _, ok := p.targets[key(r.Metadata)]; !ok {
				p.targets[key(r.Metadata)] = l
			}
			wanted[l.index] = r.Metadata
		}
	}
	for _, l := range p.world.links {
		by, ok := wanted[l.index]
		if l.up || !ok && l.kind != kindPhysical && l.kind != kindLoopback && l.group != rtnl.GroupVLAN {
			continue
		}
		if err := p.kernel.raise(l); err != nil {
			p.fail(by, refused(fmt.Errorf("bring up %s: %w", l.name, err)))
		}
	}
}

// linksOf returns the links that a Link gives its properties to.
func (p *pass) linksOf(m *resourcepb.Metadata, spec *networkpb.Link) []link {
	links := selectLinks(spec.GetLink(), p.world.links)
	if len(links) == 0 {
		p.fail(m, outcome{"NoLink", "there is no link " + describe(spec.GetLink())})
	}
	if spec.GetVlan() == nil || len(links) == 0 {
		return links
	}
	if l, ok := p.linkNamed(vlanName(spec, links[0])); ok && p.outcomes[key(m)].ok() {
		return []link{l}
	}
	return nil
}

// setMTUs gives links the MTU that a Link asks for, else a kernel argument, else the lease.
func (p *pass) setMTUs() {
	done := map[int]bool{}
	set := func(l link, mtu int, by *resourcepb.Metadata) {
		if mtu == 0 || done[l.index] {
			return
		}
		done[l.index] = true
		if l.mtu == mtu {
			return
		}
		if err := p.kernel.setMTU(l, mtu); err != nil {
			p.fail(by, refused(fmt.Errorf("set the MTU of %s to %d: %w", l.name, mtu, err)))
		}
	}
	for _, r := range p.inputs.links {
		for _, l := range p.linksOf(r.Metadata, r.Spec) {
			set(l, int(r.Spec.GetMtu()), r.Metadata)
		}
	}
	for _, a := range p.arguments.interfaces {
		for _, l := range selectLinks(a.selector(), p.world.links) {
			set(l, a.mtu, nil)
		}
	}
	for _, l := range p.world.links {
		if d := p.leased[l.index]; d != nil && d.status.Lease != nil {
			set(l, d.status.Lease.MTU, nil)
		}
	}
}

// linkStatuses answer for every link of the node, and for each Link.
func (p *pass) linkStatuses() []output {
	var all []output
	named := map[string]bool{}
	for _, r := range p.inputs.links {
		o := p.outcomes[key(r.Metadata)]
		l, there := p.linkNamed(r.GetId()) // the id is the kernel's name where there is such a link
		if !there {
			l = p.linkByIndex(p.targets[key(r.Metadata)].index)
		}
		named[r.GetId()] = true
		status := linkStatus(l)
		status.ObservedVersion, status.Ready, status.Reason, status.Message = r.GetVersion(), o.ok(), o.reason, o.message
		all = append(all, output{typeLinkStatus, r.GetId(), status, r.Metadata})
	}
	for _, l := range p.world.links {
		if named[l.name] {
			continue
		}
		status := linkStatus(l)
		status.Ready = true
		if l.kind == kindPhysical {
			status.Message = strings.Join(append(p.argumentProblems("ip", "vlan"), p.notes...), "; ")
		}
		all = append(all, output{typeLinkStatus, l.name, status, nil})
	}
	return all
}

func linkStatus(l link) *networkpb.LinkStatus {
	return &networkpb.LinkStatus{
		Name: l.name, Index: uint32(l.index), Kind: l.kind, Mac: l.mac, Up: l.up, Carrier: l.carrier, Mtu: uint32(l.mtu), Driver: l.driver,
	}
}
