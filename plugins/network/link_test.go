package network

import (
	"slices"
	"testing"

	networkpb "github.com/cosi-os/cosi/api/cosi/network/v1alpha1"
)

func byMAC(mac string) *networkpb.LinkSelector {
	return &networkpb.LinkSelector{By: &networkpb.LinkSelector_Mac{Mac: mac}}
}

func TestSelectLinks(t *testing.T) {
	links := []link{
		{index: 5, name: "eth1", kind: kindPhysical, mac: "52:54:00:00:00:02", carrier: true},
		{index: 1, name: "lo", kind: kindLoopback, carrier: true},
		{index: 2, name: "eth0", kind: kindPhysical, mac: "52:54:00:00:00:01"},
		{index: 7, name: "eth1.10", kind: kindVLAN, mac: "52:54:00:00:00:02", carrier: true},
		{index: 6, name: "eth2", kind: kindPhysical, mac: "52:54:00:00:00:03", carrier: true},
	}
	for _, test := range []struct {
		name     string
		selector *networkpb.LinkSelector
		want     []string
	}{
		{"name", byName("eth0"), []string{"eth0"}},
		{"name of a VLAN", byName("eth1.10"), []string{"eth1.10"}},
		{"unknown name", byName("eth9"), nil},
		{"MAC is the parent's, not the VLAN's", byMAC("52:54:00:00:00:02"), []string{"eth1"}},
		{"MAC in capitals", &networkpb.LinkSelector{By: &networkpb.LinkSelector_Mac{Mac: "52:54:00:00:00:0A"}}, nil},
		{"first with a carrier is the lowest index", firstWithCarrier(), []string{"eth1"}},
		{"all physical, in order", allPhysical(), []string{"eth0", "eth1", "eth2"}},
		{"empty", &networkpb.LinkSelector{}, nil},
		{"none", nil, nil},
	} {
		var got []string
		for _, l := range selectLinks(test.selector, links) {
			got = append(got, l.name)
		}
		if !slices.Equal(got, test.want) {
			t.Errorf("%s: %v; want %v", test.name, got, test.want)
		}
	}
	links[0].mac = "52:54:00:00:00:0a"
	if got := selectLinks(byMAC("52:54:00:00:00:0A"), links); len(got) != 1 {
		t.Errorf("a MAC in capitals selects %v; want eth1", got)
	}
}
