package node

import (
	"strings"
	"testing"
	"time"

	machinepb "github.com/cosi-os/cosi/api/cosi/machine/v1alpha1"
	networkpb "github.com/cosi-os/cosi/api/cosi/network/v1alpha1"
	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	servicepb "github.com/cosi-os/cosi/api/cosi/service/v1alpha1"
	"github.com/cosi-os/cosi/engine/runtime/observe"
	"github.com/cosi-os/cosi/engine/wire"
	"google.golang.org/protobuf/types/known/timestamppb"
)

func item[T any](id string, spec *T) observe.Item[T] {
	return observe.Item[T]{Metadata: &resourcepb.Metadata{Id: id}, Spec: spec}
}

// ready is a machine where all is well.
func ready() *Snapshot {
	return &Snapshot{
		Hello:        wire.Hello{PID1: true, Hostname: "cosi"},
		Outputs:      []string{addressStatuses.Type, userDataSources.Type},
		Links:        []linkItem{item("eth0", &networkpb.LinkStatus{Kind: "physical", Carrier: true})},
		Addresses:    []addressItem{item("a", &networkpb.AddressStatus{Ready: true, Address: "192.0.2.1/24"})},
		UserData:     []observe.Item[machinepb.UserDataSource]{item(UserDataSum, &machinepb.UserDataSource{Complete: true})},
		Plugins:      []observe.Item[servicepb.PluginStatus]{item("mount", &servicepb.PluginStatus{Ready: true})},
		Certificates: &machinepb.CertificatesStatus{Ready: true, Names: []string{"n1"}},
	}
}

func TestReadiness(t *testing.T) {
	next := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for name, c := range map[string]struct {
		change  func(*Snapshot)
		reason  string // empty: ready
		message string
	}{
		"all is well":     {func(*Snapshot) {}, "", ""},
		"a plugin starts": {func(s *Snapshot) { s.Plugins[0].Spec.Ready = false }, "PluginsStarting", "waiting for plugins: mount"},
		"a plugin crashes": {func(s *Snapshot) {
			s.Plugins[0].Spec = &servicepb.PluginStatus{State: "BackOff", LastExit: "exit 2", NextStart: timestamppb.New(next)}
		}, "PluginsStarting", "plugin mount ended with exit 2"},
		"no link":                 {func(s *Snapshot) { s.Links, s.Addresses = nil, nil }, "NoAddress", "there is no network link"},
		"no carrier":              {func(s *Snapshot) { s.Links[0].Spec.Carrier, s.Addresses = false, nil }, "NoAddress", "no network link has a carrier"},
		"loopback only":           {func(s *Snapshot) { s.Addresses[0].Spec.Address = "127.0.0.1/8" }, "NoAddress", "no link has an address"},
		"link-local only":         {func(s *Snapshot) { s.Addresses[0].Spec.Address = "fe80::1/64" }, "NoAddress", "no link has an address"},
		"broken address":          {func(s *Snapshot) { s.Addresses[0].Spec.Address = "x" }, "NoAddress", "no link has an address"},
		"IPv6 only":               {func(s *Snapshot) { s.Addresses[0].Spec.Address = "2001:db8::1/64" }, "", ""},
		"nobody writes addresses": {func(s *Snapshot) { s.Addresses, s.Outputs = nil, s.Outputs[1:] }, "", ""},
		"user data pending":       {func(s *Snapshot) { s.UserData[0].Spec.Complete = false }, "UserDataPending", "still being looked for"},
		"another is complete":     {func(s *Snapshot) { s.UserData[0].Metadata.Id = "fw_cfg" }, "UserDataPending", "still being looked for"},
		"user data tried again": {func(s *Snapshot) {
			s.UserData[0] = item("url", &machinepb.UserDataSource{Message: "no route", NextTry: timestamppb.New(next)})
		}, "UserDataPending", "user data from url: no route"},
		"nobody writes user data": {func(s *Snapshot) { s.UserData, s.Outputs = nil, s.Outputs[:1] }, "", ""},
		"no trust anchor":         {func(s *Snapshot) { s.Certificates = nil }, "NoTrustAnchor", "no client CA"},
		"off a machine":           {func(s *Snapshot) { s.Certificates, s.Hello.PID1 = nil, false }, "", ""},
		"kept on a disk":          {func(s *Snapshot) { s.Storage = &machinepb.StateStatus{Durable: true} }, "", ""},
		"kept in memory":          {func(s *Snapshot) { s.Storage = &machinepb.StateStatus{Reason: "NoBootDisk"} }, "", ""},
		"damaged":                 {func(s *Snapshot) { s.Storage = &machinepb.StateStatus{Reason: "StateDamaged", Frozen: true} }, "StateDamaged", "cosictl reset state --confirm n1"},
		"locked":                  {func(s *Snapshot) { s.Storage = &machinepb.StateStatus{Reason: "Locked", Frozen: true} }, "Locked", "a VolumeUnlock \"state\""},
		"frozen": {func(s *Snapshot) {
			s.Storage = &machinepb.StateStatus{Reason: "Ambiguous", Message: "two disks", Frozen: true}
		}, "Ambiguous", "takes no writes: two disks"},
		"wrong clock": {func(s *Snapshot) {
			s.Certificates = &machinepb.CertificatesStatus{Reason: "ClockImplausible", Message: "2099"}
		}, "ClockImplausible", "2099"},
	} {
		s := ready()
		c.change(s)
		r := s.Readiness()
		if r.Ready != (c.reason == "") || r.Reason != c.reason || !strings.Contains(r.Message, c.message) {
			t.Errorf("%s: %+v; want %q, %q", name, r, c.reason, c.message)
		}
		if tried := name == "a plugin crashes" || name == "user data tried again"; tried != r.Next.Equal(next) {
			t.Errorf("%s: next try %v", name, r.Next)
		}
		if status := s.Status(); status.GetReady() != r.Ready || status.GetReason() != r.Reason || status.GetMessage() != r.Message {
			t.Errorf("%s: status %v", name, status)
		}
	}
}

func TestTheServingCertificateNamesTheNode(t *testing.T) {
	s := ready()
	if s.Name() != "n1" {
		t.Errorf("name %q; want n1", s.Name())
	}
	s.Certificates = nil
	if s.Name() != "cosi" {
		t.Errorf("name %q without certificate; want the host name", s.Name())
	}
}
