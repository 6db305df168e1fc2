package network

import (
	machinepb "github.com/cosi-os/cosi/api/cosi/machine/v1alpha1"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// Reasons of a CertificatesStatus.
const (
	reasonServing          = "Serving"
	reasonNoTrustAnchor    = "NoTrustAnchor"
	reasonInvalid          = "Invalid"
	reasonClockImplausible = "ClockImplausible"
)

// status says what is in force, and of the version that was read last what is wrong with it.
func (g *Gate) status(version string, problem error) *machinepb.CertificatesStatus {
	var t *trust
	if p := g.policy.Load(); p != nil {
		t = p.trust
	}
	s := &machinepb.CertificatesStatus{ObservedVersion: version}
	if t != nil {
		describe(s, t)
	}
	switch {
	case problem != nil:
		s.Reason, s.Message = reasonInvalid, problem.Error()
		if t != nil {
			s.Message += "; version " + t.version + " stays in force"
		}
	case t == nil:
		s.Reason, s.Message = reasonNoTrustAnchor, "no client CA: user data brings one (cosictl gen makes it)"
	case t.clock(g.Now()) != "":
		s.Reason, s.Message = reasonClockImplausible, t.clock(g.Now())
	default:
		s.Ready, s.Reason = true, reasonServing
	}
	return s
}

func describe(s *machinepb.CertificatesStatus, t *trust) {
	leaf := t.serving.Leaf
	s.Names, s.Fingerprint, s.SelfSigned = leaf.DNSNames, fingerprint(leaf), t.selfSigned
	s.NotBefore, s.NotAfter = timestamppb.New(leaf.NotBefore), timestamppb.New(leaf.NotAfter)
	s.Revoked = uint32(len(t.revoked))
	for _, ca := range t.cas {
		s.ClientCas = append(s.ClientCas, &machinepb.CertificatesStatus_CA{
			Subject: ca.Subject.String(), Fingerprint: fingerprint(ca), NotAfter: timestamppb.New(ca.NotAfter),
		})
	}
}
