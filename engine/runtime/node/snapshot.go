// Package node knows the node as a whole: it gathers what the runtime and the plugins say in one snapshot, derives from it whether the
// node is ready, writes MachineStatuses, and sends the lines of package console to PID 1.
package node

import (
	machinepb "github.com/cosi-os/cosi/api/cosi/machine/v1alpha1"
	networkpb "github.com/cosi-os/cosi/api/cosi/network/v1alpha1"
	servicepb "github.com/cosi-os/cosi/api/cosi/service/v1alpha1"
	"github.com/cosi-os/cosi/engine/runtime/observe"
	"github.com/cosi-os/cosi/engine/wire"
)

// Snapshot is what is known of the node at one moment. Slices are in the order of the resources' ids.
type Snapshot struct {
	Hello   wire.Hello
	Version string // of the image
	// Port of the network API.
	Port int
	// Listening says that the network API answers.
	Listening bool
	// Refusal is the last client that was refused because of the clock, in words.
	Refusal string
	Stages  []wire.Stage
	// Watchdog is what its driver calls it; empty without one.
	Watchdog string
	// Outputs are the types that the image's plugins write: a status that nobody writes is not waited for.
	Outputs []string
	// Storage says where configuration is kept.
	Storage *machinepb.StateStatus

	Links        []observe.Item[networkpb.LinkStatus]
	Addresses    []observe.Item[networkpb.AddressStatus]
	DHCP         []observe.Item[networkpb.DHCPClientStatus]
	UserData     []observe.Item[machinepb.UserDataSource]
	Plugins      []observe.Item[servicepb.PluginStatus]
	Certificates *machinepb.CertificatesStatus // nil before the first
}

type (
	linkItem    = observe.Item[networkpb.LinkStatus]
	addressItem = observe.Item[networkpb.AddressStatus]
)

// physical returns the links that a cable or a radio is behind.
func (s *Snapshot) physical() []linkItem {
	var links []linkItem
	for _, l := range s.Links {
		if l.Spec.GetKind() == "physical" {
			links = append(links, l)
		}
	}
	return links
}

// Name is the node's name: that of its serving certificate, or the machine's host name.
func (s *Snapshot) Name() string {
	if names := s.Certificates.GetNames(); len(names) > 0 {
		return names[0]
	}
	return s.Hello.Hostname
}
