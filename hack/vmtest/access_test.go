package vmtest_test

import (
	"crypto/rand"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	machinepb "github.com/cosi-os/cosi/api/cosi/machine/v1alpha1"
	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	"github.com/cosi-os/cosi/api/document"
	"github.com/cosi-os/cosi/api/kinds/builtin"
	"github.com/cosi-os/cosi/hack/vmtest"
	"github.com/cosi-os/cosi/tools/client"
	"github.com/cosi-os/cosi/tools/pki"
	"github.com/cosi-os/cosi/tools/qemu/node"
)

const (
	certificatesType = "Certificates.machine.cosi.dev"
	machineType      = "MachineStatuses.machine.cosi.dev"
)

// moment is how long an answer may take, on hardware.
const moment = 10 * time.Second

func maker(at time.Time) pki.Maker { return pki.Maker{Now: at, Rand: rand.Reader} }

// pair takes what a maker returns.
func pair(t *testing.T) func(*pki.Pair, error) *pki.Pair {
	return func(p *pki.Pair, err error) *pki.Pair {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
}

// person is a client of the node with a fresh certificate of a role.
func person(t *testing.T, n *vmtest.Node, role pki.Role) *client.Client {
	t.Helper()
	return dial(t, n.Context, pair(t)(maker(time.Now()).Client(n.Identity.CA, string(role), role)))
}

// dial returns a client that shows a certificate; nil shows none.
func dial(t *testing.T, c client.Context, certificate *pki.Pair) *client.Client {
	t.Helper()
	c.Certificate, c.Key = "", ""
	if certificate != nil {
		c.Certificate, c.Key = string(certificate.CertPEM), string(certificate.KeyPEM)
	}
	made, err := client.Dial(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { made.Close() })
	return made
}

// get reads the machine's status, which everybody may who is let in.
func get(t *testing.T, n *vmtest.Node, c *client.Client) error {
	t.Helper()
	kind, err := builtin.Set().Lookup(machineType)
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.Get(n.Patience(t, moment), kind, "machine")
	return err
}

// checkRoles: a reader only reads, and keys are for the admin.
func checkRoles(t *testing.T, n *vmtest.Node) {
	reader, operator := person(t, n, pki.RoleReader), person(t, n, pki.RoleOperator)
	certificates := n.Kind(t, certificatesType)
	for role, c := range map[pki.Role]*client.Client{pki.RoleReader: reader, pki.RoleOperator: operator} {
		if err := get(t, n, c); err != nil {
			t.Errorf("a %s reads the machine's status: %v", role, err)
		}
		_, err := c.Get(n.Patience(t, moment), certificates, "node")
		vmtest.Refused(t, err, codes.PermissionDenied)
		_, err = c.List(n.Patience(t, moment), certificates)
		vmtest.Refused(t, err, codes.PermissionDenied)
		err = c.Watch(n.Patience(t, moment), certificates, "", nil, func(*resourcepb.Event) error { return nil })
		vmtest.Refused(t, err, codes.PermissionDenied)
	}
	_, err := n.Client.Get(n.Patience(t, moment), certificates, "node")
	if err != nil {
		t.Errorf("the admin reads Certificates: %v", err)
	}
	vmtest.Refused(t, write(t, n, reader, "reader"), codes.PermissionDenied)
	if err := write(t, n, operator, "operator"); err != nil {
		t.Errorf("an operator writes: %v", err)
	}
	n.Delete(t, "resolvers", "operator")
}

// write makes a Resolver, which harms nobody.
func write(t *testing.T, n *vmtest.Node, c *client.Client, id string) error {
	t.Helper()
	documents, problems := document.Parse("test.yaml", fmt.Appendf(nil,
		"metadata: {type: Resolvers.network.cosi.dev, id: %s}\nspec: {servers: [192.0.2.1]}\n", id))
	set, err := n.Client.Kinds(n.Patience(t, moment))
	if err != nil || len(problems) > 0 {
		t.Fatal(err, problems)
	}
	r, problems := documents[0].Resolve(set)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	_, err = c.State.Create(n.Patience(t, moment), &resourcepb.CreateRequest{Resource: r})
	return err
}

// checkStrangers: who has no certificate of ours that is valid now does not get past the handshake.
func checkStrangers(t *testing.T, n *vmtest.Node) {
	now := time.Now()
	another := pair(t)(maker(now).CA("another"))
	impostor := pair(t)(maker(now).CA(n.Identity.CA.Certificate.Subject.CommonName))
	for _, stranger := range []struct {
		name        string
		certificate *pki.Pair
		alert       string
	}{
		{"no certificate", nil, "certificate required"},
		{"another CA", pair(t)(maker(now).Client(another, "admin", pki.RoleAdmin)), "bad certificate"},
		{"another CA of the same name", pair(t)(maker(now).Client(impostor, "admin", pki.RoleAdmin)), "bad certificate"},
		{"expired", pair(t)(maker(now.Add(-pki.LifeClient-time.Hour)).Client(n.Identity.CA, "admin", pki.RoleAdmin)), "bad certificate"},
		{"the node's own", n.Identity.Serving, "bad certificate"},
	} {
		err := get(t, n, dial(t, n.Context, stranger.certificate))
		if client.Code(err) != codes.Unavailable || err == nil || !strings.Contains(err.Error(), "tls: "+stranger.alert) {
			t.Errorf("%s: the node answers %v; want the TLS alert %q", stranger.name, err, stranger.alert)
		}
	}
}

// checkRevocation: a revoked client's next request is refused, and the stream that it has open ends.
func checkRevocation(t *testing.T, n *vmtest.Node) {
	lost := pair(t)(maker(time.Now()).Client(n.Identity.CA, "lost", pki.RoleAdmin))
	c := dial(t, n.Context, lost)
	ended := watch(t, n, c)
	changeCertificates(t, n, func(now *machinepb.Certificates) {
		now.Revoked = append(now.Revoked, pki.Fingerprint(lost.Certificate))
	})
	select {
	case err := <-ended:
		if err == nil {
			t.Error("the revoked client's watch ends as if all were well")
		}
	case <-n.Patience(t, moment).Done():
		t.Error("the revoked client's watch goes on")
	}
	if err := get(t, n, c); err == nil {
		t.Error("the revoked client reads")
	}
	if err := get(t, n, person(t, n, pki.RoleReader)); err != nil {
		t.Errorf("another client of the same CA: %v", err)
	}
}

// checkNewCertificates: another serving certificate and a second CA are in force at once, without anything being started again.
func checkNewCertificates(t *testing.T, n *vmtest.Node) {
	ended := watch(t, n, n.Client)
	now := maker(time.Now())
	ca := pair(t)(now.CA("second"))
	second := &node.Identity{Name: "renamed", CA: ca, Serving: pair(t)(now.Node(ca, "renamed")), Admin: pair(t)(now.Client(ca, "second", pki.RoleAdmin))}
	changeCertificates(t, n, func(c *machinepb.Certificates) {
		c.ClientCas = append(c.ClientCas, string(ca.CertPEM))
		c.ServingCertificate, c.ServingKey = string(second.Serving.CertPEM), string(second.Serving.KeyPEM)
	})
	served, err := client.ServingCertificate(n.Patience(t, moment), n.Context.Endpoint)
	if err != nil || pki.Fingerprint(served) != pki.Fingerprint(second.Serving.Certificate) {
		t.Errorf("the node shows another certificate than the new one (%v)", err)
	}
	c := dial(t, second.Context(n.Context.Endpoint), second.Admin)
	if err := get(t, n, c); err != nil {
		t.Errorf("a client of the second CA: %v", err)
	}
	if err := get(t, n, dial(t, n.Context, n.Identity.Admin)); err == nil {
		t.Error("a client that knows the node by the old CA and name accepts it still")
	}
	changeCertificates(t, n, func(c *machinepb.Certificates) {
		c.ClientCas = c.ClientCas[:len(c.ClientCas)-1]
		c.ServingCertificate, c.ServingKey = string(n.Identity.Serving.CertPEM), string(n.Identity.Serving.KeyPEM)
	})
	if err := get(t, n, c); err == nil {
		t.Error("a client of a CA that was taken away reads")
	}
	if err := get(t, n, dial(t, n.Context, n.Identity.Admin)); err != nil {
		t.Errorf("with the first serving certificate again: %v", err)
	}
	select {
	case err := <-ended:
		t.Errorf("the admin's watch, whose certificate was good all the time, ended: %v", err)
	default:
	}
}

// changeCertificates writes the node's Certificates and waits until they are in force.
func changeCertificates(t *testing.T, n *vmtest.Node, change func(*machinepb.Certificates)) {
	t.Helper()
	kind, content := n.Kind(t, certificatesType), &machinepb.Certificates{}
	r, err := n.Client.Get(n.Patience(t, moment), kind, "node")
	if err != nil {
		t.Fatal(err)
	}
	if err := proto.Unmarshal(r.GetSpec().GetProtoSpec(), content); err != nil {
		t.Fatal(err)
	}
	change(content)
	spec, err := proto.Marshal(content)
	if err != nil {
		t.Fatal(err)
	}
	r.Spec = &resourcepb.Spec{ProtoSpec: spec}
	_, written, err := n.Client.Apply(n.Patience(t, moment), kind, r)
	if err != nil {
		t.Fatal(err)
	}
	n.Converged(t, written)
}

// watch opens a watch of the machine's status, waits until it is open, and returns what tells how it ended.
func watch(t *testing.T, n *vmtest.Node, c *client.Client) <-chan error {
	t.Helper()
	open, ended, kind := make(chan struct{}, 1), make(chan error, 1), n.Kind(t, machineType)
	go func() {
		ended <- c.Watch(t.Context(), kind, "machine", nil, func(*resourcepb.Event) error {
			select {
			case open <- struct{}{}:
			default:
			}
			return nil
		})
	}()
	select {
	case <-open:
	case err := <-ended:
		t.Fatalf("the watch ends before it has begun: %v", err)
	case <-n.Patience(t, moment).Done():
		t.Fatal("the watch says nothing")
	}
	return ended
}

// A node whose clock is in the future says what is wrong, and refuses.
func TestClockInTheFuture(t *testing.T) {
	vmtest.Parallel(t, 15)
	n := vmtest.Start(t, vmtest.Options{Boot: node.Kernel, Extra: []string{"-rtc", "base=2099-01-01T00:00:00,clock=vm"}})
	n.Expect(t, 0, `not ready because the clock says 2099-01-01, that is after the serving certificate's end`)
	if err := n.WaitTLS(n.Patience(t, time.Minute)); err != nil {
		t.Fatal(err)
	}
	if err := get(t, n, dial(t, n.Context, n.Identity.Admin)); err == nil {
		t.Error("the node accepts a certificate that ended decades ago")
	}
	n.Expect(t, 0, `client refused because of the time: certificate of .*CN=admin.* this node's clock says 2099-01-01T`)
}
