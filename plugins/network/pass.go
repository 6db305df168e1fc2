package network

import (
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"

	networkpb "github.com/cosi-os/cosi/api/cosi/network/v1alpha1"
	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	"github.com/cosi-os/cosi/sdk"
)

// inputs are the resources that are wanted: none of them is being torn down.
type inputs struct {
	links     []sdk.Resource[*networkpb.Link]
	addresses []sdk.Resource[*networkpb.Address]
	routes    []sdk.Resource[*networkpb.Route]
	clients   []sdk.Resource[*networkpb.DHCPClient]
	resolvers []sdk.Resource[*networkpb.Resolver]
}

// output is a status to write.
type output struct {
	typ, id string
	spec    proto.Message
	// cause is the resource that the status answers to, if any.
	cause *resourcepb.Metadata
}

// pass is one way from the inputs to the outputs. The methods that make up a pass are called in the order of run.
type pass struct {
	*network
	inputs
	world

	outcomes map[string]outcome // by type and id of the input: see outcome
	targets  map[string]link    // by type and id of the input: the link that it is about
	managed  map[int]string     // by index: what configures the link, so that DHCPClients leave it alone
	leased   map[int]*leased    // by index: the links with a DHCP client
	wanted   []addressWish
	notes    []string
	outputs  []output
	// stuck is what to try again although nothing will wake us: what could not be removed, and whoever asked for it stays until it
	// is; and what the kernel has no module for yet.
	stuck []error
}

// outcome is what became of an input. The zero value is: all as wanted.
type outcome struct {
	reason, message string
}

func (o outcome) ok() bool { return o == outcome{} }

func refused(err error) outcome { return outcome{"Refused", err.Error()} }

// key names an input.
func key(m *resourcepb.Metadata) string { return m.GetType() + "/" + m.GetId() }

// fail notes the first thing that stands in an input's way. Kernel arguments and leases have no metadata: what stands in their way is
// for the log, and for the statuses of the physical links.
func (p *pass) fail(m *resourcepb.Metadata, o outcome) {
	if m == nil {
		p.complain(o.message)
		p.note(o.message)
		return
	}
	if p.outcomes[key(m)].ok() {
		p.outcomes[key(m)] = o
	}
}

// note adds to the message of the physical links.
func (p *pass) note(message string) {
	if !slices.Contains(p.notes, message) {
		p.notes = append(p.notes, message)
	}
}

// removal notes that what nobody asks for any more could not be removed.
func (p *pass) removal(what string, err error) {
	if err != nil {
		p.stuck = append(p.stuck, fmt.Errorf("remove %s: %w", what, err))
	}
}

func (p *pass) linkByIndex(index int) link {
	for _, l := range p.world.links {
		if l.index == index {
			return l
		}
	}
	return link{}
}

// one returns the only link that a selector names, or says why there is none.
func (p *pass) one(selector *networkpb.LinkSelector) (link, outcome) {
	links := selectLinks(selector, p.world.links)
	switch {
	case len(links) == 0:
		return link{}, outcome{"NoLink", "there is no link " + describe(selector)}
	case len(links) > 1:
		return link{}, outcome{"Ambiguous", fmt.Sprintf("%d links are meant; name one", len(links))}
	}
	return links[0], outcome{}
}

// reread reads the world again if something was changed since writes was noted.
func (p *pass) reread(writes int) (err error) {
	if p.kernel.writes != writes {
		p.world, err = p.kernel.read()
	}
	return err
}

// run makes the world what the inputs say. Its error is of what kept it from trying; what the kernel refused is in the outputs, and
// in stuck.
func (p *pass) run() (err error) {
	if p.world, err = p.kernel.read(); err != nil {
		return err
	}
	before := p.kernel.writes
	p.makeVLANs()
	if err := p.reread(before); err != nil {
		return err
	}
	before = p.kernel.writes
	p.raiseLinks()
	if err := p.reread(before); err != nil {
		return err
	}
	p.runClients()
	before = p.kernel.writes
	p.setMTUs()
	p.setAddresses()
	p.setRoutes()
	if err := p.reread(before); err != nil {
		return err
	}
	resolvers := p.setResolvers()
	p.outputs = append(p.linkStatuses(), p.addressStatuses()...)
	p.outputs = append(p.outputs, p.routeStatuses()...)
	p.outputs = append(p.outputs, p.clientStatuses()...)
	p.outputs = append(p.outputs, resolvers...)
	return nil
}
