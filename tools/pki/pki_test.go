package pki

import (
	"bytes"
	"crypto/x509"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

var now = time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)

func maker(t *testing.T, at time.Time) Maker {
	t.Helper()
	return Maker{Now: at, Rand: rand.NewChaCha8([32]byte{1})}
}

func must(t *testing.T) func(*Pair, error) *Pair {
	return func(p *Pair, err error) *Pair {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
}

func verify(ca, p *Pair, at time.Time, name string, usage x509.ExtKeyUsage) error {
	pool := x509.NewCertPool()
	pool.AddCert(ca.Certificate)
	_, err := p.Certificate.Verify(x509.VerifyOptions{Roots: pool, CurrentTime: at, DNSName: name, KeyUsages: []x509.ExtKeyUsage{usage}})
	return err
}

func TestANodeIsVerifiedByItsNameOnly(t *testing.T) {
	m := maker(t, now)
	ca := must(t)(m.CA("lab"))
	node := must(t)(m.Node(ca, "node1"))
	if err := verify(ca, node, now, "node1", x509.ExtKeyUsageServerAuth); err != nil {
		t.Error(err)
	}
	for what, err := range map[string]error{
		"another name":     verify(ca, node, now, "node2", x509.ExtKeyUsageServerAuth),
		"an address":       verify(ca, node, now, "127.0.0.1", x509.ExtKeyUsageServerAuth),
		"another CA":       verify(must(t)(m.CA("lab")), node, now, "node1", x509.ExtKeyUsageServerAuth),
		"use as client":    verify(ca, node, now, "", x509.ExtKeyUsageClientAuth),
		"after its expiry": verify(ca, node, now.Add(LifeNode+time.Hour), "node1", x509.ExtKeyUsageServerAuth),
	} {
		if err == nil {
			t.Errorf("%s was accepted", what)
		}
	}
	if n := node.Certificate; len(n.DNSNames) != 1 || len(n.IPAddresses) != 0 || n.IsCA {
		t.Errorf("node certificate: %v %v CA %v", n.DNSNames, n.IPAddresses, n.IsCA)
	}
}

func TestAClientsRoleIsItsOrganisation(t *testing.T) {
	m := maker(t, now)
	ca := must(t)(m.CA("lab"))
	for _, role := range append(slices.Clone(Roles), "name-servers") {
		client := must(t)(m.Client(ca, "me", role))
		if o := client.Certificate.Subject.Organization; len(o) != 1 || o[0] != string(role) {
			t.Errorf("organisation of %s: %v", role, o)
		}
		if err := verify(ca, client, now, "", x509.ExtKeyUsageClientAuth); err != nil {
			t.Error(err)
		}
	}
	for _, role := range []Role{"", " admin", Role(strings.Repeat("r", 254))} {
		if _, err := m.Client(ca, "me", role); err == nil || !strings.Contains(err.Error(), "is not a role") {
			t.Errorf("role %q: %v", role, err)
		}
	}
	if _, err := m.Client(must(t)(m.Client(ca, "me", RoleAdmin)), "you", RoleAdmin); err == nil {
		t.Error("a client signed a certificate")
	}
}

func TestCertificatesHoldOnANodeWhoseClockIsItsImagesBuildTime(t *testing.T) {
	m := maker(t, now)
	ca := must(t)(m.CA("lab"))
	if err := verify(ca, must(t)(m.Client(ca, "me", RoleAdmin)), now.AddDate(-1, -6, 0), "", x509.ExtKeyUsageClientAuth); err != nil {
		t.Error(err)
	}
}

func TestRenewBeforeAndAfterExpiryKeepsKeyAndNames(t *testing.T) {
	m := maker(t, now)
	ca := must(t)(m.CA("lab"))
	node, client := must(t)(m.Node(ca, "node1")), must(t)(m.Client(ca, "me", RoleReader))
	for _, later := range []time.Duration{time.Hour, 5 * 365 * 24 * time.Hour} {
		at := now.Add(later)
		m := maker(t, at)
		for _, old := range []*Pair{node, client} {
			fresh := must(t)(m.Renew(ca, old))
			usage := old.Certificate.ExtKeyUsage[0]
			if err := verify(ca, fresh, at, "", usage); err != nil {
				t.Errorf("after %v: %v", later, err)
			}
			if !fresh.SameKey(old.CertPEM) || fresh.SameKey(ca.CertPEM) || fresh.SameKey(append(old.CertPEM, ca.CertPEM...)) || fresh.SameKey(nil) {
				t.Errorf("SameKey of %v", fresh.Certificate.Subject)
			}
			if !bytes.Equal(fresh.KeyPEM, old.KeyPEM) || fresh.Certificate.Subject.String() != old.Certificate.Subject.String() || Fingerprint(fresh.Certificate) == Fingerprint(old.Certificate) {
				t.Errorf("renewed %v", fresh.Certificate.Subject)
			}
		}
	}
	at := now.Add(LifeCA + time.Hour)
	renewed := must(t)(maker(t, at).Renew(nil, ca))
	if !ca.Expired(at) || renewed.Expired(at) {
		t.Error("expiry of the CA")
	}
	if err := verify(renewed, must(t)(maker(t, at).Renew(renewed, node)), at, "node1", x509.ExtKeyUsageServerAuth); err != nil {
		t.Error(err)
	}
}

func TestTheSameRandomGivesTheSamePair(t *testing.T) {
	a, b := must(t)(maker(t, now).CA("lab")), must(t)(maker(t, now).CA("lab"))
	if !bytes.Equal(a.CertPEM, b.CertPEM) || !bytes.Equal(a.KeyPEM, b.KeyPEM) {
		t.Error("two pairs of one seed differ")
	}
}

func TestNodeRefusesWhatIsNoName(t *testing.T) {
	ca := must(t)(maker(t, now).CA("lab"))
	for _, name := range []string{"", "Node", "a_b", "-a", "a..b", "192.0.2.1", "192.0.2.1/24", "*.lab"} {
		if _, err := maker(t, now).Node(ca, name); err == nil {
			t.Errorf("Node(%q) succeeded", name)
		}
	}
}

func TestClientRefusesWhatIsNoName(t *testing.T) {
	m := maker(t, now)
	ca := must(t)(m.CA("lab"))
	for _, name := range []string{"", "../x", "a b", "a/b", "a\nb", "-a", strings.Repeat("a", 65)} {
		if _, err := m.Client(ca, name, RoleReader); err == nil {
			t.Errorf("Client(%q) succeeded", name)
		}
	}
	for _, name := range []string{"me", "alice@example.org", "ci_runner-2", strings.Repeat("a", 64)} {
		if _, err := m.Client(ca, name, RoleReader); err != nil {
			t.Error(err)
		}
	}
}

func TestParseFingerprint(t *testing.T) {
	want := strings.Repeat("0a", 32)
	for _, text := range []string{want, strings.ToUpper(want), strings.TrimSuffix(strings.Repeat("0A:", 32), ":"), " " + want + "\n"} {
		if got, err := ParseFingerprint(text); err != nil || got != want {
			t.Errorf("ParseFingerprint(%q) = %q, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "0a", want + "00", strings.Repeat("zz", 32)} {
		if _, err := ParseFingerprint(text); err == nil {
			t.Errorf("ParseFingerprint(%q) succeeded", text)
		}
	}
}
