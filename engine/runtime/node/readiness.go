package node

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	machinepb "github.com/cosi-os/cosi/api/cosi/machine/v1alpha1"
	servicepb "github.com/cosi-os/cosi/api/cosi/service/v1alpha1"
	"github.com/cosi-os/cosi/engine/runtime/storage"
)

// UserDataSum is the UserDataSources resource that says whether all sources have been looked at.
const UserDataSum = "userdata"

// Readiness is whether the node is ready; if not, the first reason there is, in one word and in words, and the time of the next try if
// something is tried again.
type Readiness struct {
	Ready   bool
	Reason  string
	Message string
	Next    time.Time
}

// Readiness is ready when every declared plugin is, the node has an address that others can reach, and user data is applied. The
// reasons come in the order in which a person would remove them. A node whose state is damaged is not ready.
func (s *Snapshot) Readiness() Readiness {
	for _, check := range []func(*Snapshot) (Readiness, bool){plugins, address, userData, certificates, frozen} {
		if r, bad := check(s); bad {
			return r
		}
	}
	return Readiness{Ready: true}
}

func plugins(s *Snapshot) (Readiness, bool) {
	var waiting []string
	var worst *servicepb.PluginStatus
	var name string
	for _, p := range s.Plugins {
		if p.Spec.GetReady() {
			continue
		}
		waiting = append(waiting, p.GetId())
		if worst == nil || p.Spec.GetState() == "BackOff" && worst.GetState() != "BackOff" {
			worst, name = p.Spec, p.GetId()
		}
	}
	if worst == nil {
		return Readiness{}, false
	}
	r := Readiness{Reason: "PluginsStarting", Message: "waiting for plugins: " + strings.Join(waiting, ", ")}
	if worst.GetState() == "BackOff" {
		r.Message = fmt.Sprintf("plugin %s ended with %s, %d restarts", name, worst.GetLastExit(), worst.GetRestarts())
		r.Next = worst.GetNextStart().AsTime()
	}
	return r, true
}

func address(s *Snapshot) (Readiness, bool) {
	if !slices.Contains(s.Outputs, addressStatuses.Type) {
		return Readiness{}, false
	}
	if slices.ContainsFunc(s.Addresses, serves) {
		return Readiness{}, false
	}
	r := Readiness{Reason: "NoAddress", Message: "no link has an address"}
	switch links := s.physical(); {
	case len(links) == 0:
		r.Message = "there is no network link"
	case !slices.ContainsFunc(links, func(l linkItem) bool { return l.Spec.GetCarrier() }):
		r.Message = "no network link has a carrier"
	default:
		for _, d := range s.DHCP {
			if !d.Spec.GetReady() && d.Spec.GetMessage() != "" {
				r.Message = "no address: " + d.Spec.GetMessage()
			}
		}
	}
	return r, true
}

// serves reports whether others can reach the node by a.
func serves(a addressItem) bool { return a.Spec.GetReady() && reachable(a.Spec.GetAddress()) }

// reachable reports whether an address with its prefix length is more than loopback or link-local.
func reachable(text string) bool {
	p, err := netip.ParsePrefix(text)
	if err != nil {
		return false
	}
	a := p.Addr()
	return !a.IsLoopback() && !a.IsLinkLocalUnicast() && !a.IsUnspecified()
}

func userData(s *Snapshot) (Readiness, bool) {
	if !slices.Contains(s.Outputs, userDataSources.Type) {
		return Readiness{}, false
	}
	r := Readiness{Reason: "UserDataPending", Message: "user data is still being looked for"}
	for _, u := range s.UserData {
		if u.GetId() == UserDataSum && u.Spec.GetComplete() {
			return Readiness{}, false
		}
		if next := u.Spec.GetNextTry(); next != nil {
			r.Message, r.Next = fmt.Sprintf("user data from %s: %s", u.GetId(), u.Spec.GetMessage()), next.AsTime()
		}
	}
	return r, true
}

// certificates lets a node without a trust anchor be ready under engine --root only: there a socket is the way in.
func certificates(s *Snapshot) (Readiness, bool) {
	c := s.Certificates
	switch {
	case c.GetReason() == "ClockImplausible":
		return Readiness{Reason: "ClockImplausible", Message: c.GetMessage()}, true
	case s.Hello.PID1 && !c.GetReady():
		return Readiness{Reason: "NoTrustAnchor", Message: noTrustAnchor(c)}, true
	}
	return Readiness{}, false
}

// frozen comes last: the node does what its user data says, and waits for a person.
func frozen(s *Snapshot) (Readiness, bool) {
	if !s.Storage.GetFrozen() {
		return Readiness{}, false
	}
	r := Readiness{Reason: s.Storage.GetReason(), Message: "the state cannot be used and takes no writes: " + s.Storage.GetMessage()}
	if r.Reason == storage.ReasonDamaged {
		r.Message = "the state is damaged and takes no writes: cosictl reset state --confirm " + s.Name()
	}
	if r.Reason == storage.ReasonLocked {
		r.Message = "the state is locked and takes no writes: a VolumeUnlock \"state\" with the recovery key opens it"
	}
	return r, true
}

func noTrustAnchor(c *machinepb.CertificatesStatus) string {
	if c.GetMessage() != "" {
		return c.GetMessage()
	}
	return "no client CA was given"
}
