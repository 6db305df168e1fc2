package network

import (
	"slices"
	"strings"

	networkpb "github.com/cosi-os/cosi/api/cosi/network/v1alpha1"
)

// link is a network link as the kernel has it.
type link struct {
	index int
	name  string
	// kind is "physical", "loopback", or the kernel's own word: "vlan", "bridge".
	kind string
	// mac is lower case, with colons; empty for links that have none.
	mac         string
	up, carrier bool
	// running comes with the carrier or up to a second after it. Before, it may be that nothing is sent yet.
	running bool
	mtu     int
	driver  string
	// parent and vlan are the index of the link below and the id of a VLAN.
	parent, vlan int
	group        uint32
}

const (
	kindPhysical = "physical"
	kindLoopback = "loopback"
	kindVLAN     = "vlan"
)

// selectLinks returns the links that a selector names, in the order of their indexes. A MAC address names physical links only: a
// VLAN has its parent's. No selector selects nothing.
func selectLinks(selector *networkpb.LinkSelector, links []link) []link {
	var selected []link
	for _, l := range links {
		if selects(selector, l) {
			selected = append(selected, l)
		}
	}
	slices.SortFunc(selected, func(a, b link) int { return a.index - b.index })
	if selector.GetFirstWithCarrier() && len(selected) > 1 {
		selected = selected[:1]
	}
	return selected
}

func selects(selector *networkpb.LinkSelector, l link) bool {
	switch by := selector.GetBy().(type) {
	case *networkpb.LinkSelector_Name:
		return l.name == by.Name
	case *networkpb.LinkSelector_Mac:
		return l.kind == kindPhysical && strings.EqualFold(l.mac, by.Mac)
	case *networkpb.LinkSelector_FirstWithCarrier:
		return by.FirstWithCarrier && l.kind == kindPhysical && l.carrier
	case *networkpb.LinkSelector_AllPhysical:
		return by.AllPhysical && l.kind == kindPhysical
	}
	return false
}

// describe says in words what a selector asks for.
func describe(selector *networkpb.LinkSelector) string {
	switch by := selector.GetBy().(type) {
	case *networkpb.LinkSelector_Name:
		return "named " + by.Name
	case *networkpb.LinkSelector_Mac:
		return "with the MAC address " + by.Mac
	case *networkpb.LinkSelector_FirstWithCarrier:
		return "that is physical and has a carrier"
	}
	return "that is physical"
}

func byName(name string) *networkpb.LinkSelector {
	return &networkpb.LinkSelector{By: &networkpb.LinkSelector_Name{Name: name}}
}

func firstWithCarrier() *networkpb.LinkSelector {
	return &networkpb.LinkSelector{By: &networkpb.LinkSelector_FirstWithCarrier{FirstWithCarrier: true}}
}

func allPhysical() *networkpb.LinkSelector {
	return &networkpb.LinkSelector{By: &networkpb.LinkSelector_AllPhysical{AllPhysical: true}}
}
