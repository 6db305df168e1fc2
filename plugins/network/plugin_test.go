package network

import (
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	networkpb "github.com/cosi-os/cosi/api/cosi/network/v1alpha1"
	"github.com/cosi-os/cosi/engine/runtime/plugintest"
	"github.com/cosi-os/cosi/sdk"
)

// runPlugin runs the whole plugin against a real runtime and a real kernel, until the test ends.
func runPlugin(t *testing.T) (*network, *plugintest.Runtime) {
	t.Helper()
	r := plugintest.Start(t, pluginJSON)
	n := newNetwork()
	dir := t.TempDir()
	n.cmdline, n.resolvConf = filepath.Join(dir, "cmdline"), filepath.Join(dir, "resolv.conf")
	must(t, os.WriteFile(n.cmdline, nil, 0o644))
	must(t, n.open())
	n.kernel.cables = map[string]bool{"veth": true}
	t.Setenv(sdk.EnvEndpoint, r.Endpoint)
	ctx, cancel := context.WithCancel(context.Background())
	result := make(chan error)
	go func() { result <- sdk.Run(ctx, n.plugin()) }()
	t.Cleanup(func() { cancel(); <-result; n.kernel.close() })
	return n, r
}

func TestResourcesComeAndGoThroughTheAPI(t *testing.T) {
	c := newCable(t, "eth0")
	c.serve(time.Hour)
	_, r := runPlugin(t)
	dhcp, leases := &networkpb.DHCPClient{Link: allPhysical()}, &networkpb.DHCPClientStatus{}
	r.Apply("default", dhcp)
	r.Wait("a lease", func() bool { return r.Get("default", leases) != nil && leases.GetReady() })
	m := r.Get("default", leases)
	if cause := m.GetAnnotations()[sdk.Cause]; !strings.HasPrefix(cause, "DHCPClients.network.cosi.dev/default@") || m.GetOwner() != "network" {
		t.Errorf("cause %q, owner %q", cause, m.GetOwner())
	}
	if in := r.Get("default", &networkpb.DHCPClient{}); !slices.Equal(in.GetFinalizers(), []string{"network"}) || leases.ObservedVersion != in.GetVersion() {
		t.Errorf("finalizers %v, version %s, observed %s", in.GetFinalizers(), in.GetVersion(), leases.ObservedVersion)
	}

	address, status := &networkpb.Address{Link: byName("eth0"), Address: "192.0.2.20/24"}, &networkpb.AddressStatus{}
	r.Apply("lan", address)
	r.Wait("the address instead of the lease", func() bool {
		return r.Get("lan", status) != nil && status.GetReady() && r.Get("eth0-192.0.2.10", &networkpb.AddressStatus{}) == nil
	})
	r.Wait("DHCP left alone", func() bool { return r.Get("default", leases) != nil && leases.GetReason() == "LeftAlone" })

	r.Delete("lan", address)
	if r.Get("lan", status) != nil {
		t.Error("the status outlives the finalizer")
	}
	r.Wait("a lease again", func() bool { return r.Get("default", leases) != nil && len(leases.GetLeases()) == 1 })
	r.Delete("default", dhcp)
	if _, ok := addressesOf(t, "eth0")[leasedPrefix]; ok {
		t.Error("the leased address outlives the finalizer")
	}
}

func TestStatusesAreWrittenAgainForANewRuntime(t *testing.T) {
	newCable(t, "eth0")
	_, r := runPlugin(t)
	links := func(name string) func() bool {
		return func() bool {
			s := &networkpb.LinkStatus{}
			return r.Get(name, s) != nil && s.GetUp()
		}
	}
	r.Wait("the link", links("eth0"))
	r.Stop()
	r.Resume(true)
	r.Wait("the link again", links("eth0"))
	r.Wait("loopback", links("lo"))
}

// addressesOf reads a link's addresses with a connection to the kernel of its own.
func addressesOf(t *testing.T, link string) map[netip.Prefix]address {
	t.Helper()
	k, err := openKernel()
	must(t, err)
	defer k.close()
	return (&node{network: &network{kernel: k}, t: t}).addresses(link)
}
