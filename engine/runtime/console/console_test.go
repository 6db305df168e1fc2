package console_test

import (
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	machinepb "github.com/cosi-os/cosi/api/cosi/machine/v1alpha1"
	networkpb "github.com/cosi-os/cosi/api/cosi/network/v1alpha1"
	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	servicepb "github.com/cosi-os/cosi/api/cosi/service/v1alpha1"
	"github.com/cosi-os/cosi/engine/runtime/console"
	"github.com/cosi-os/cosi/engine/runtime/node"
	"github.com/cosi-os/cosi/engine/runtime/observe"
	"github.com/cosi-os/cosi/engine/wire"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/timestamppb"
)

var update = flag.Bool("update", false, "rewrite the golden files")

var later = timestamppb.New(time.Date(2026, 11, 22, 10, 30, 5, 0, time.UTC))

func item[T any](id string, spec *T) observe.Item[T] {
	return observe.Item[T]{Metadata: &resourcepb.Metadata{Id: id}, Spec: spec}
}

// userData is what the plugin userdata says in one of its own tests, which holds it to that, and that it is done.
func userData(t *testing.T, name string) []observe.Item[machinepb.UserDataSource] {
	t.Helper()
	data, err := os.ReadFile("../../../plugins/userdata/testdata/" + name + ".json")
	if err != nil {
		t.Fatal(err)
	}
	var specs map[string]json.RawMessage
	if err := json.Unmarshal(data, &specs); err != nil {
		t.Fatal(err)
	}
	specs[node.UserDataSum] = json.RawMessage(`{"state": "Applied", "complete": true}`)
	var all []observe.Item[machinepb.UserDataSource]
	for _, id := range slices.Sorted(maps.Keys(specs)) {
		spec := &machinepb.UserDataSource{}
		if err := protojson.Unmarshal(specs[id], spec); err != nil {
			t.Fatal(err)
		}
		all = append(all, item(id, spec))
	}
	return all
}

// good is a node where all is well.
func good(t *testing.T) *node.Snapshot {
	return &node.Snapshot{
		Hello:     wire.Hello{PID1: true, Kernel: "6.12.107+deb13-cloud-amd64", Hostname: "cosi"},
		Version:   "0.1.0",
		Port:      50000,
		Listening: true,
		Outputs:   []string{"AddressStatuses.network.cosi.dev", "UserDataSources.machine.cosi.dev"},
		Links: []observe.Item[networkpb.LinkStatus]{
			item("eth0", &networkpb.LinkStatus{Name: "eth0", Kind: "physical", Mac: "52:54:00:12:34:56", Up: true, Carrier: true}),
			item("lo", &networkpb.LinkStatus{Name: "lo", Kind: "loopback", Up: true, Carrier: true}),
		},
		Addresses: []observe.Item[networkpb.AddressStatus]{
			item("eth0-0", &networkpb.AddressStatus{Ready: true, Address: "10.0.2.15/24", LinkName: "eth0", Source: "dhcp"}),
			item("eth0-1", &networkpb.AddressStatus{Ready: true, Address: "fe80::1/64", LinkName: "eth0", Source: "kernel"}),
			item("lo-0", &networkpb.AddressStatus{Ready: true, Address: "127.0.0.1/8", LinkName: "lo", Source: "kernel"}),
		},
		UserData: userData(t, "applied"),
		Plugins: []observe.Item[servicepb.PluginStatus]{
			item("mount", &servicepb.PluginStatus{State: "Ready", Ready: true}),
			item("network", &servicepb.PluginStatus{State: "Ready", Ready: true}),
		},
		Storage:      &machinepb.StateStatus{Durable: true, Device: "/dev/vda5"},
		Certificates: &machinepb.CertificatesStatus{Ready: true, Reason: "Serving", Names: []string{"n1"}, Fingerprint: strings.Repeat("0123456789abcdef", 4)},
	}
}

func noCertificates(s *node.Snapshot) {
	s.Listening = false
	s.Certificates = &machinepb.CertificatesStatus{Reason: "NoTrustAnchor", Message: "no client CA: user data brings one (cosictl gen makes it)"}
}

func TestWhatAPersonSees(t *testing.T) {
	for name, change := range map[string]func(*node.Snapshot){
		"all ready": func(*node.Snapshot) {},
		"no link": func(s *node.Snapshot) {
			s.Links, s.Addresses = s.Links[1:], s.Addresses[2:]
		},
		"no carrier": func(s *node.Snapshot) {
			s.Links[0].Spec.Carrier = false
			s.Addresses = s.Addresses[2:]
		},
		"no lease": func(s *node.Snapshot) {
			s.Addresses = s.Addresses[1:]
			s.DHCP = append(s.DHCP, item("default", &networkpb.DHCPClientStatus{Message: "eth0: no answer to 4 DISCOVER, next try 10:30:05 UTC"}))
			noCertificates(s)
			s.UserData = nil
		},
		"no user data": func(s *node.Snapshot) {
			s.UserData = userData(t, "none")
			noCertificates(s)
		},
		"user data unreachable": func(s *node.Snapshot) {
			s.UserData = userData(t, "unreachable")
			s.UserData[len(s.UserData)-1].Spec.Complete = false
		},
		"bad user data": func(s *node.Snapshot) { s.UserData = userData(t, "bad") },
		"user data refused": func(s *node.Snapshot) {
			s.UserData = userData(t, "refused")
			noCertificates(s)
		},
		"many sources": func(s *node.Snapshot) {
			u := &machinepb.UserDataSource{Source: "url", State: "Applied", Documents: 1, Applied: 1, Unauthenticated: true}
			s.UserData = append(s.UserData, item("cidata-sr0", &machinepb.UserDataSource{Source: "cidata", State: "Applied", Documents: 1, Applied: 1}), item("url", u))
		},
		"crash loop": func(s *node.Snapshot) {
			s.Plugins[0] = item("mount", &servicepb.PluginStatus{State: "BackOff", LastExit: "exit 2", Restarts: 5, NextStart: later})
			s.Plugins[1] = item("network", &servicepb.PluginStatus{State: "Starting"})
		},
		"no disk": func(s *node.Snapshot) {
			s.Storage = &machinepb.StateStatus{Reason: "NoBootDisk", Message: "no disk of its own, what the API writes is gone with the next boot"}
		},
		"state damaged": func(s *node.Snapshot) {
			s.Storage = &machinepb.StateStatus{Reason: "StateDamaged", Frozen: true, Device: "/dev/vda5", Message: "/var/lib/cosi/state/log/00000001.log: damaged at byte 4711: the checksum does not match"}
		},
		"state locked": func(s *node.Snapshot) {
			s.Storage = &machinepb.StateStatus{Reason: "Locked", Frozen: true, Device: "/dev/vda5", Message: "/dev/vda5: the TPM does not open it: it was sealed by another TPM, or this one was cleared since"}
		},
		"state frozen": func(s *node.Snapshot) {
			s.Storage = &machinepb.StateStatus{Reason: "ReadOnly", Frozen: true, Device: "/dev/vda5", Message: "/dev/vda cannot be written"}
		},
		"another image": func(s *node.Snapshot) {
			s.Storage = &machinepb.StateStatus{Durable: true, Device: "/dev/vda5", Reason: "Misfits", Message: "Tokens.example.org: 1 of 3 resources do not fit: a: spec: has fields that example.Token does not have (3 bytes): is the client newer than the node?"}
		},
		"wrong clock": func(s *node.Snapshot) {
			s.Certificates.Ready, s.Certificates.Reason = false, "ClockImplausible"
			s.Certificates.Message = "the clock says 2099-01-01T00:00:00Z, that is after the serving certificate's end, 2027-01-01T00:00:00Z: clients will refuse this node"
			s.Refusal = "client refused because of the time: certificate of CN=me,O=admin is valid from 2026-01-01T00:00:00Z to 2027-01-01T00:00:00Z, this node's clock says 2099-01-01T00:00:00Z"
		},
		"many links": func(s *node.Snapshot) {
			for i := 1; i < 20; i++ {
				s.Links = slices.Insert(s.Links, 0, item(fmt.Sprint(i), &networkpb.LinkStatus{Name: fmt.Sprint("eth", 20-i), Kind: "physical"}))
				s.UserData = append(s.UserData, item(fmt.Sprint(i), &machinepb.UserDataSource{State: "Failed", Message: "broken"}))
			}
			s.UserData[0].Spec.State, s.UserData[0].Spec.Message = "Failed", "\x1b[2J\nnot found "+strings.Repeat("long ", 50)
		},
	} {
		s := good(t)
		change(s)
		lines := console.Render(s)
		if len(lines) > 10 {
			t.Errorf("%s: %d lines", name, len(lines))
		}
		golden(t, strings.ReplaceAll(name, " ", "-")+".txt", strings.Join(lines, "\n")+"\n")
	}
}

func golden(t *testing.T, file, got string) {
	t.Helper()
	path := filepath.Join("testdata", file)
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s: got\n%s\nwant\n%s", file, got, want)
	}
}
