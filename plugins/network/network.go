// Package network is the plugin that makes the node's network what its resources say: Links, Addresses, Routes, DHCPClients and
// Resolvers, over netlink.
//
// It is one controller. A pass reads the kernel, compares it with the resources and the kernel's arguments (ip=, vlan=, nameserver=,
// as dracut.cmdline(7) writes them), changes what differs and writes statuses of what is then there. A pass over a network that is as
// it should be changes nothing. What is ours carries a mark in the kernel itself, so that a restarted plugin knows it again; the rest
// is never touched. Links, addresses and routes wake it over netlink, leases by their own timers; nothing is polled.
//
// The kernel's arguments come before all resources, as far as they go: a link that they configure is left alone by DHCPClients, and
// so is a link with an Address.
package network

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"log"
	"os"
	"slices"
	"strings"
	"sync"

	"google.golang.org/protobuf/proto"

	networkpb "github.com/cosi-os/cosi/api/cosi/network/v1alpha1"
	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	"github.com/cosi-os/cosi/sdk"
)

//go:embed plugin.json
var pluginJSON []byte

// Version is shown in PluginStatuses.
const Version = "0.1.0"

const (
	typeLink       = "Links.network.cosi.dev"
	typeAddress    = "Addresses.network.cosi.dev"
	typeRoute      = "Routes.network.cosi.dev"
	typeDHCPClient = "DHCPClients.network.cosi.dev"
	typeResolver   = "Resolvers.network.cosi.dev"

	typeLinkStatus       = "LinkStatuses.network.cosi.dev"
	typeAddressStatus    = "AddressStatuses.network.cosi.dev"
	typeRouteStatus      = "RouteStatuses.network.cosi.dev"
	typeDHCPClientStatus = "DHCPClientStatuses.network.cosi.dev"
	typeResolverStatus   = "ResolverStatuses.network.cosi.dev"
)

var outputTypes = []string{typeLinkStatus, typeAddressStatus, typeRouteStatus, typeDHCPClientStatus, typeResolverStatus}

// network is the controller.
type network struct {
	cmdline    string // the file with the kernel's arguments
	resolvConf string // the file to write; /etc/resolv.conf is a link to it
	dhcp       *clients

	once      sync.Once // guards the opening of what is below; only Reconcile uses it afterwards
	kernel    *kernel
	arguments arguments
	err       error
	said      map[string]bool // complaints that were made
}

// Plugin returns the plugin.
func Plugin() sdk.Plugin { return newNetwork().plugin() }

func (n *network) plugin() sdk.Plugin {
	return sdk.Plugin{
		Declaration: pluginJSON,
		Version:     Version,
		Controllers: []sdk.Controller{{
			Name:      "network",
			Inputs:    []string{typeLink, typeAddress, typeRoute, typeDHCPClient, typeResolver},
			Outputs:   outputTypes,
			Reconcile: n.reconcile,
			Watch:     n.watch,
		}},
	}
}

func newNetwork() *network {
	return &network{cmdline: "/proc/cmdline", resolvConf: "/run/cosi/network/resolv.conf", dhcp: newClients(), said: map[string]bool{}}
}

// open opens the kernel and reads its arguments, once.
func (n *network) open() error {
	n.once.Do(func() {
		if n.kernel, n.err = openKernel(); n.err != nil {
			return
		}
		line, err := os.ReadFile(n.cmdline)
		if err != nil {
			n.complain(err.Error()) // the resources count all the same
		}
		n.arguments = parseCmdline(string(line))
		for _, p := range n.arguments.problems {
			n.complain(p.String())
		}
	})
	return n.err
}

// complain writes a line to the log, once.
func (n *network) complain(message string) {
	if !n.said[message] {
		n.said[message] = true
		log.Print(message)
	}
}

// argumentProblems says what is wrong with the arguments of these keys.
func (n *network) argumentProblems(keys ...string) []string {
	var all []string
	for _, p := range n.arguments.problems {
		if key, _, _ := strings.Cut(p.argument, "="); slices.Contains(keys, key) {
			all = append(all, p.String())
		}
	}
	return all
}

func (n *network) watch(ctx context.Context, wake func()) error {
	ctx, stop := context.WithCancel(ctx)
	var leases sync.WaitGroup
	leases.Go(func() { n.dhcp.run(ctx, wake) })
	defer leases.Wait()
	defer stop()
	return watchKernel(ctx, wake)
}

// reconcile runs a pass between the finalizers: they are put on before the first change and taken off after the last.
func (n *network) reconcile(ctx context.Context, s *sdk.State) error {
	if err := n.open(); err != nil {
		return err
	}
	in, gone, unheld := readInputs(ctx, s)
	p := n.newPass(in)
	if err := p.run(); err != nil {
		return err
	}
	if err := p.write(ctx, s); err != nil {
		return err
	}
	if len(p.stuck) > 0 {
		return errors.Join(p.stuck...)
	}
	for _, m := range gone {
		if err := s.RemoveFinalizer(ctx, m); err != nil {
			return err
		}
	}
	return unheld
}

func (n *network) newPass(in inputs) *pass {
	return &pass{
		network: n, inputs: in,
		outcomes: map[string]outcome{}, targets: map[string]link{}, managed: map[int]string{}, leased: map[int]*leased{},
	}
}

// readInputs returns what is wanted, with our finalizers on it, and what is being torn down. The error is of finalizers that could
// not be put on: the network comes up without them, because what is ours is known by its marks when the resource is gone.
func readInputs(ctx context.Context, s *sdk.State) (in inputs, gone []*resourcepb.Metadata, err error) {
	t := taker{ctx: ctx, state: s}
	in.links = take[*networkpb.Link](&t, typeLink)
	in.addresses = take[*networkpb.Address](&t, typeAddress)
	in.routes = take[*networkpb.Route](&t, typeRoute)
	in.clients = take[*networkpb.DHCPClient](&t, typeDHCPClient)
	in.resolvers = take[*networkpb.Resolver](&t, typeResolver)
	return in, t.gone, errors.Join(t.errs...)
}

// taker collects what take finds beside what it returns.
type taker struct {
	ctx   context.Context
	state *sdk.State
	gone  []*resourcepb.Metadata
	errs  []error
}

func take[T proto.Message](t *taker, typ string) []sdk.Resource[T] {
	var wanted []sdk.Resource[T]
	for _, r := range sdk.List[T](t.state, typ) {
		if r.TearingDown() {
			t.gone = append(t.gone, r.Metadata)
			continue
		}
		if err := t.state.AddFinalizer(t.ctx, r.Metadata); err != nil {
			t.errs = append(t.errs, err)
		}
		wanted = append(wanted, r)
	}
	return wanted
}

// write writes the outputs, and deletes those that nothing stands for any more.
func (p *pass) write(ctx context.Context, s *sdk.State) error {
	wanted := map[string]bool{}
	for _, o := range p.outputs {
		wanted[o.typ+"/"+o.id] = true
		if err := s.Write(ctx, o.typ, o.id, o.spec, o.cause); err != nil {
			return err
		}
	}
	for _, typ := range outputTypes {
		for _, id := range s.Outputs(typ) {
			if wanted[typ+"/"+id] {
				continue
			}
			if err := s.Delete(ctx, typ, id); err != nil {
				return fmt.Errorf("network: %w", err)
			}
		}
	}
	return nil
}
