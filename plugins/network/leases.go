package network

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	networkpb "github.com/cosi-os/cosi/api/cosi/network/v1alpha1"
	"github.com/cosi-os/cosi/plugins/internal/rtnl"
	"github.com/cosi-os/cosi/plugins/network/dhcp"
)

// leased is a link with a DHCP client, and what was got there.
type leased struct {
	status                        dhcp.Status
	ignoreRoutes, ignoreResolvers bool
}

// runClients says which links are to have a DHCP client, and takes what the clients have got so far.
//
// The kernel's arguments come first, then Addresses: a DHCPClient gets what is left of the links that it selects.
func (p *pass) runClients() {
	wanted := map[int]clientLink{}
	add := func(l link, d leased) {
		if _, ok := p.leased[l.index]; !ok && len(l.mac) == len("52:54:00:12:34:56") {
			wanted[l.index] = clientLink{l.mac, l.carrier, l.running, p.previous(l.index)}
			p.leased[l.index] = &d
		}
	}
	p.findManaged(add)
	for _, r := range p.inputs.clients {
		for _, l := range selectLinks(r.Spec.GetLink(), p.world.links) {
			if p.managed[l.index] == "" {
				add(l, leased{ignoreRoutes: r.Spec.GetIgnoreRoutes(), ignoreResolvers: r.Spec.GetIgnoreResolvers()})
			}
		}
	}
	p.dhcp.want(wanted)
	for index, d := range p.leased {
		d.status = p.dhcp.of(index)
	}
}

// findManaged finds the links that are configured otherwise, and those where a kernel argument asks for DHCP.
func (p *pass) findManaged(add func(link, leased)) {
	for _, a := range p.arguments.interfaces {
		links := selectLinks(a.selector(), p.world.links)
		if len(links) == 0 {
			p.note("kernel argument ip=: there is no link " + describe(a.selector()))
		}
		for _, l := range links {
			if a.dhcp {
				add(l, leased{})
			} else {
				p.managed[l.index] = "the kernel's arguments"
			}
		}
	}
	for _, v := range p.arguments.vlans {
		if l, ok := p.linkNamed(v.parent); ok && p.leased[l.index] == nil {
			p.managed[l.index] = "the kernel's arguments"
		}
	}
	for _, r := range p.inputs.addresses {
		for _, l := range selectLinks(r.Spec.GetLink(), p.world.links) {
			if p.managed[l.index] == "" && p.leased[l.index] == nil {
				p.managed[l.index] = fmt.Sprintf("the Address %q", r.GetId())
			}
		}
	}
}

// previous returns the address that a link has from a lease, of an earlier run of the plugin if it has no client yet.
func (p *pass) previous(index int) netip.Addr {
	for _, a := range p.world.addresses {
		if a.link == index && a.protocol == rtnl.ProtocolDHCP {
			return a.prefix.Addr()
		}
	}
	return netip.Addr{}
}

// clientStatuses answer for each DHCPClient.
func (p *pass) clientStatuses() []output {
	var all []output
	for _, r := range p.inputs.clients {
		status := p.clientStatus(selectLinks(r.Spec.GetLink(), p.world.links))
		if status.Reason == "NoLink" {
			status.Message = "there is no link " + describe(r.Spec.GetLink())
		}
		status.ObservedVersion = r.GetVersion()
		all = append(all, output{typeDHCPClientStatus, r.GetId(), status, r.Metadata})
	}
	return all
}

func (p *pass) clientStatus(links []link) *networkpb.DHCPClientStatus {
	status := &networkpb.DHCPClientStatus{}
	var messages []string
	var waiting, alone, dark int
	for _, l := range links {
		d := p.leased[l.index]
		switch {
		case d == nil && p.managed[l.index] != "":
			alone++
			messages = append(messages, fmt.Sprintf("%s is left to %s", l.name, p.managed[l.index]))
		case d == nil:
			messages = append(messages, l.name+" has no hardware address to ask with")
		case d.status.Lease != nil:
			status.Leases = append(status.Leases, leaseStatus(l, d.status.Lease))
		case !l.carrier:
			dark++
			messages = append(messages, l.name+": no carrier")
		default:
			waiting++
			messages = append(messages, l.name+": "+orElse(d.status.Message, "asking for an address"))
		}
	}
	status.Message = strings.Join(messages, "; ")
	switch {
	case len(links) == 0:
		status.Reason = "NoLink"
	case waiting > 0:
		status.Reason = "NoLease"
	case len(status.Leases) > 0:
		status.Ready = true
	case alone > 0 && dark == 0:
		status.Ready, status.Reason = true, "LeftAlone"
	default:
		status.Reason = "NoCarrier"
	}
	return status
}

func orElse(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

func leaseStatus(l link, lease *dhcp.Lease) *networkpb.DHCPClientStatus_Lease {
	status := &networkpb.DHCPClientStatus_Lease{
		LinkName: l.name,
		Address:  lease.Address.String(),
		Search:   slices.Clone(lease.Search),
		Obtained: lease.Obtained.UTC().Format(time.RFC3339),
		Server:   lease.Server.String(),
	}
	if gateway := lease.Gateway(); gateway.IsValid() {
		status.Gateway = gateway.String()
	}
	for _, server := range lease.Servers {
		status.Servers = append(status.Servers, server.String())
	}
	if !lease.Expires.IsZero() {
		status.Expires = lease.Expires.UTC().Format(time.RFC3339)
	}
	return status
}
