package network

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	networkpb "github.com/cosi-os/cosi/api/cosi/network/v1alpha1"
	"github.com/cosi-os/cosi/plugins/network/dhcp"
)

// Programs read no more than these of resolv.conf.
const (
	maxServers = 3
	maxSearch  = 6
)

// nodeID is the id of the status that shows the sum.
const nodeID = "node"

// resolver collects name servers in the order of precedence: resources, kernel arguments, leases.
type resolver struct {
	servers, search []string
	sources         []string
}

func (r *resolver) add(source string, servers []netip.Addr, search []string) {
	for _, s := range servers {
		if text := s.String(); !slices.Contains(r.servers, text) {
			r.servers = append(r.servers, text)
		}
	}
	for _, domain := range search {
		if dhcp.HostName(domain) && !slices.Contains(r.search, domain) {
			r.search = append(r.search, domain)
		}
	}
	if len(servers)+len(search) > 0 && !slices.Contains(r.sources, source) {
		r.sources = append(r.sources, source)
	}
}

// content is resolv.conf.
func (r *resolver) content() []byte {
	var b bytes.Buffer
	for _, s := range r.servers[:min(len(r.servers), maxServers)] {
		fmt.Fprintf(&b, "nameserver %s\n", s)
	}
	if len(r.search) > 0 {
		fmt.Fprintf(&b, "search %s\n", strings.Join(r.search[:min(len(r.search), maxSearch)], " "))
	}
	return b.Bytes()
}

// setResolvers writes resolv.conf and returns the statuses: one for each Resolver, and the sum.
func (p *pass) setResolvers() []output {
	r := p.collectResolvers()
	err := writeResolver(p.resolvConf, r.content())
	used := r.servers[:min(len(r.servers), maxServers)]

	var all []output
	for _, in := range p.inputs.resolvers {
		status := &networkpb.ResolverStatus{ObservedVersion: in.GetVersion(), Search: in.Spec.GetSearch(), Source: "static"}
		for _, s := range parseServers(in.Spec.GetServers()) {
			if slices.Contains(used, s.String()) {
				status.Servers = append(status.Servers, s.String())
			}
		}
		switch {
		case err != nil:
			status.Reason, status.Message = "Refused", err.Error()
		case len(status.Servers) < len(in.Spec.GetServers()):
			status.Reason, status.Message = "TooMany", fmt.Sprintf("programs use the first %d name servers only", maxServers)
		default:
			status.Ready = true
		}
		all = append(all, output{typeResolverStatus, in.GetId(), status, in.Metadata})
	}
	if slices.ContainsFunc(all, func(o output) bool { return o.id == nodeID }) {
		return all // a Resolver has the name
	}
	node := &networkpb.ResolverStatus{
		Ready: err == nil && len(used) > 0, Servers: used, Search: r.search, Source: strings.Join(r.sources, ", "),
		Message: strings.Join(p.argumentProblems("nameserver"), "; "),
	}
	switch {
	case err != nil:
		node.Reason, node.Message = "Refused", err.Error()
	case len(used) == 0:
		node.Reason = "NoServers"
	}
	return append(all, output{typeResolverStatus, nodeID, node, nil})
}

func (p *pass) collectResolvers() *resolver {
	r := &resolver{}
	for _, in := range p.inputs.resolvers {
		r.add("static", parseServers(in.Spec.GetServers()), in.Spec.GetSearch())
	}
	r.add("cmdline", p.arguments.servers, nil)
	for _, a := range p.arguments.interfaces {
		r.add("cmdline", a.servers, nil)
	}
	for _, l := range p.world.links {
		if d := p.leased[l.index]; d != nil && d.status.Lease != nil && !d.ignoreResolvers {
			r.add("dhcp", d.status.Lease.Servers, d.status.Lease.Search)
		}
	}
	// While an address of an earlier lease waits for a server's word, so do the name servers that came with it.
	for _, d := range p.leased {
		if d.status.Keep {
			content, _ := os.ReadFile(p.resolvConf)
			servers, search := parseResolver(string(content))
			r.add("dhcp", servers, search)
		}
	}
	return r
}

// parseResolver reads what content wrote.
func parseResolver(content string) (servers []netip.Addr, search []string) {
	for line := range strings.Lines(content) {
		switch words := strings.Fields(line); {
		case len(words) == 2 && words[0] == "nameserver":
			servers = append(servers, parseServers(words[1:])...)
		case len(words) > 1 && words[0] == "search":
			search = append(search, words[1:]...)
		}
	}
	return servers, search
}

// parseServers leaves out what is no address: the file has a syntax.
func parseServers(all []string) []netip.Addr {
	var servers []netip.Addr
	for _, s := range all {
		if a, err := netip.ParseAddr(s); err == nil {
			servers = append(servers, a)
		}
	}
	return servers
}

// writeResolver replaces the file if it holds anything else.
func writeResolver(name string, content []byte) error {
	old, err := os.ReadFile(name)
	if err == nil && bytes.Equal(old, content) {
		return nil
	}
	if errors.Is(err, fs.ErrNotExist) && len(content) == 0 {
		return nil
	}
	return replaceFile(name, content)
}

// replaceFile writes a file so that a reader finds the old or the new contents, whole.
func replaceFile(name string, content []byte) error {
	f, err := os.CreateTemp(filepath.Dir(name), ".resolv.conf-*")
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	err = errors.Join(err, f.Chmod(0o644), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		os.Remove(f.Name())
	}
	return err
}
