package network

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"strings"
	"testing"

	machinepb "github.com/cosi-os/cosi/api/cosi/machine/v1alpha1"
	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	"github.com/cosi-os/cosi/engine/runtime/access"
	"github.com/cosi-os/cosi/engine/runtime/state"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// person returns a client certificate with a common name and an organisation.
func (c *ca) person(name, organisation string) tls.Certificate {
	return c.issue(&x509.Certificate{
		Subject: pkix.Name{CommonName: name, Organization: []string{organisation}}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
}

// role writes a Role below access and waits until it is in force.
func (n *node) role(id string, spec *machinepb.Role) {
	n.t.Helper()
	content, _ := proto.Marshal(spec)
	r := &resourcepb.Resource{
		Metadata: &resourcepb.Metadata{Namespace: access.Roles.Namespace, Type: access.Roles.Type, Id: id, Phase: state.PhaseRunning},
		Spec:     &resourcepb.Spec{ProtoSpec: content},
	}
	old, err := n.store.Get(context.Background(), state.PointerTo(r))
	if err == nil {
		r.Metadata = proto.CloneOf(old.GetMetadata())
		r, err = n.store.Update(context.Background(), r, state.WriteOptions{})
	} else {
		r, err = n.store.Create(context.Background(), r, state.WriteOptions{})
	}
	if err != nil {
		n.t.Fatal(err)
	}
	n.eventually("the role is read", func() bool { return n.roleStatus(id).GetObservedVersion() == r.GetMetadata().GetVersion() })
}

func (n *node) roleStatus(id string) *machinepb.RoleStatus {
	s := &machinepb.RoleStatus{}
	if r, err := n.store.Get(context.Background(), state.Pointer{Kind: RoleStatuses, ID: id}); err == nil {
		proto.Unmarshal(r.GetSpec().GetProtoSpec(), s)
	}
	return s
}

const databases = "Databases.example.org"

func (n *node) database(id string) *resourcepb.Resource {
	return &resourcepb.Resource{
		Metadata: &resourcepb.Metadata{Namespace: "config", Type: databases, Id: id, Phase: state.PhaseRunning},
		Spec:     &resourcepb.Spec{ProtoSpec: []byte("x")},
	}
}

func list(t *testing.T, c resourcepb.StateClient, typ string) (ids string, err error) {
	t.Helper()
	stream, err := c.List(t.Context(), &resourcepb.ListRequest{Namespace: "config", Type: typ})
	for err == nil {
		var m *resourcepb.ListResponse
		if m, err = stream.Recv(); err == nil {
			ids += m.GetResource().GetMetadata().GetId() + " "
		}
	}
	if err.Error() == "EOF" {
		err = nil
	}
	return ids, err
}

func TestARoleLetsItsHoldersIn(t *testing.T) {
	n, c := newNode(t), newCA(t)
	n.apply(&machinepb.Certificates{ClientCas: []string{c.pem}})
	for _, id := range []string{"blue-1", "blue-2", "green-1"} {
		if _, err := n.store.Create(t.Context(), n.database(id), state.WriteOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	ann := c.person("ann", "databases")
	if err := get(n.dial(ann)); err == nil {
		t.Error("somebody without any role is let in")
	}
	n.role("blue", &machinepb.Role{Organisations: []string{"databases"}, Rules: []*machinepb.Role_Rule{
		{Verbs: []string{"get", "list", "watch", "update"}, Kinds: []string{databases}, Ids: "blue-.*"},
	}})
	client := n.dial(ann)
	if ids, err := list(t, client, databases); err != nil || ids != "blue-1 blue-2 " {
		t.Errorf("list = %q, %v", ids, err)
	}
	for name, try := range map[string]func() error{
		"get another id": func() error {
			_, err := client.Get(t.Context(), &resourcepb.GetRequest{Namespace: "config", Type: databases, Id: "green-1"})
			return err
		},
		"get what only begins like it": func() error {
			_, err := client.Get(t.Context(), &resourcepb.GetRequest{Namespace: "config", Type: databases, Id: "x-blue-1"})
			return err
		},
		"create": func() error {
			_, err := client.Create(t.Context(), &resourcepb.CreateRequest{Resource: n.database("blue-3")})
			return err
		},
		"destroy": func() error {
			_, err := client.Destroy(t.Context(), &resourcepb.DestroyRequest{Namespace: "config", Type: databases, Id: "blue-1"})
			return err
		},
		"list another kind": func() error { _, err := list(t, client, "Others.example.org"); return err },
		"update as an owner": func() error {
			r := n.database("blue-1")
			r.Metadata.Version = "1"
			_, err := client.Update(t.Context(), &resourcepb.UpdateRequest{NewResource: r, Options: &resourcepb.UpdateOptions{Owner: "me"}})
			return err
		},
	} {
		if err := try(); status.Code(err) != codes.PermissionDenied {
			t.Errorf("%s: %v", name, err)
		}
	}
	r := n.database("blue-1")
	r.Metadata.Version = "1"
	if _, err := client.Update(t.Context(), &resourcepb.UpdateRequest{NewResource: r}); err != nil {
		t.Errorf("update: %v", err)
	}
}

func TestAWatchByRoleShowsOnlyItsIDs(t *testing.T) {
	n, c := newNode(t), newCA(t)
	n.apply(&machinepb.Certificates{ClientCas: []string{c.pem}})
	n.role("blue", &machinepb.Role{Names: []string{"ann"}, Rules: []*machinepb.Role_Rule{{Verbs: []string{"*"}, Kinds: []string{databases}, Ids: "blue-.*"}}})
	stream, err := n.dial(c.person("ann", "x")).Watch(t.Context(), &resourcepb.WatchRequest{
		Namespace: "config", Type: databases, ApiVersion: 1, Options: &resourcepb.WatchOptions{BootstrapContents: true},
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"green-1", "blue-1"} {
		if _, err := n.store.Create(t.Context(), n.database(id), state.WriteOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	for len(got) < 2 {
		m, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range m.GetEvent() {
			got = append(got, e.GetEventType().String()+" "+e.GetResource().GetMetadata().GetId())
		}
	}
	if strings.Join(got, ", ") != "BOOTSTRAPPED , CREATED blue-1" {
		t.Errorf("events: %q", got)
	}
}

// TestARoleThatChangesEndsWhatIsOpen: a stream was let in by rules that are no longer so.
func TestARoleThatChangesEndsWhatIsOpen(t *testing.T) {
	n, c := newNode(t), newCA(t)
	n.apply(&machinepb.Certificates{ClientCas: []string{c.pem}})
	all := &machinepb.Role{Names: []string{"ann"}, Rules: []*machinepb.Role_Rule{{Verbs: []string{"*"}, Kinds: []string{"*"}}}}
	n.role("all", all)
	ann, bob := n.dial(c.person("ann", "x")), n.dial(c.person("bob", "reader"))
	stream, others := n.watch(ann), n.watch(bob)
	n.role("all", &machinepb.Role{Names: []string{"ann"}, Rules: []*machinepb.Role_Rule{{Verbs: []string{"get"}, Kinds: []string{"*"}}}})
	if _, err := stream.Recv(); err == nil {
		t.Error("a stream goes on")
	}
	if _, err := list(t, ann, databases); status.Code(err) != codes.PermissionDenied {
		t.Errorf("list: %v", err)
	}
	if err := get(ann); err != nil {
		t.Errorf("get: %v", err)
	}
	if err := n.store.Destroy(t.Context(), state.Pointer{Kind: access.Roles, ID: "all"}, state.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	n.eventually("the status is gone", func() bool { return n.roleStatus("all").GetObservedVersion() == "" })
	if err := get(ann); err == nil {
		t.Error("without the role she is let in")
	}
	// Somebody whom the role does not name notices nothing.
	r := n.database("a")
	r.Metadata.Type = "Nothing.example.org"
	if _, err := n.store.Create(t.Context(), r, state.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	if m, err := others.Recv(); err != nil || len(m.GetEvent()) != 1 {
		t.Errorf("bob's stream: %v, %v", m, err)
	}
}

func TestARoleThatDoesNotCompileGivesNothing(t *testing.T) {
	n, c := newNode(t), newCA(t)
	n.apply(&machinepb.Certificates{ClientCas: []string{c.pem}})
	n.role("bad", &machinepb.Role{Names: []string{"ann"}, Rules: []*machinepb.Role_Rule{{Verbs: []string{"*"}, Kinds: []string{"*"}, Ids: "("}}})
	if s := n.roleStatus("bad"); s.GetReady() || s.GetReason() != reasonInvalid || !strings.Contains(s.GetMessage(), "spec.rules[0].ids") {
		t.Errorf("status = %v", s)
	}
	if err := get(n.dial(c.person("ann", "x"))); err == nil {
		t.Error("ann is let in")
	}
}

// certificates writes the resource as the client does.
func certificates(t *testing.T, c resourcepb.StateClient, spec *machinepb.Certificates) error {
	t.Helper()
	answer, err := c.Get(t.Context(), &resourcepb.GetRequest{Namespace: Certificates.Namespace, Type: Certificates.Type, Id: Node})
	if err != nil {
		t.Fatal(err)
	}
	r := answer.GetResource()
	r.Spec = &resourcepb.Spec{}
	r.Spec.ProtoSpec, _ = proto.Marshal(spec)
	_, err = c.Update(t.Context(), &resourcepb.UpdateRequest{NewResource: r})
	return err
}

// TestTrustAnchorsRotate: two at once, and the old one goes when the admin has come with the new.
func TestTrustAnchorsRotate(t *testing.T) {
	n, first, second := newNode(t), newCA(t), newCA(t)
	n.apply(&machinepb.Certificates{ClientCas: []string{first.pem}})
	old := n.dial(first.client("admin"))
	if err := certificates(t, old, &machinepb.Certificates{ClientCas: []string{second.pem}}); status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), "lock you out") {
		t.Errorf("the only CA goes: %v", err)
	}
	if err := certificates(t, old, &machinepb.Certificates{ClientCas: []string{first.pem, second.pem}}); err != nil {
		t.Fatal(err)
	}
	n.eventually("both are in force", func() bool { return len(n.status().GetClientCas()) == 2 })
	fresh := n.dial(second.client("admin"))
	if err := get(old); err != nil {
		t.Errorf("the old CA's client: %v", err)
	}
	if err := certificates(t, fresh, &machinepb.Certificates{ClientCas: []string{second.pem}}); err != nil {
		t.Fatal(err)
	}
	n.eventually("the old is gone", func() bool { return len(n.status().GetClientCas()) == 1 })
	if err := get(old); err == nil {
		t.Error("the old CA's client is let in")
	}
	if err := get(fresh); err != nil {
		t.Errorf("the new CA's client: %v", err)
	}
}

func TestAnAdminCannotLockThemselvesOut(t *testing.T) {
	n, c := newNode(t), newCA(t)
	n.apply(&machinepb.Certificates{ClientCas: []string{c.pem}})
	own, other := c.client("admin"), c.client("admin")
	client := n.dial(own)
	node := &resourcepb.GetRequest{Namespace: Certificates.Namespace, Type: Certificates.Type, Id: Node}
	for name, err := range map[string]error{
		"revoke oneself": certificates(t, client, &machinepb.Certificates{ClientCas: []string{c.pem}, Revoked: []string{fingerprint(own.Leaf)}}),
		"revoke the CA":  certificates(t, client, &machinepb.Certificates{ClientCas: []string{c.pem}, Revoked: []string{fingerprint(c.cert)}}),
		"no CA":          certificates(t, client, &machinepb.Certificates{}),
		"destroy": func() error {
			_, err := client.Destroy(t.Context(), &resourcepb.DestroyRequest{Namespace: node.Namespace, Type: node.Type, Id: node.Id})
			return err
		}(),
		"tear down": func() error {
			_, err := client.Teardown(t.Context(), &resourcepb.TeardownRequest{Namespace: node.Namespace, Type: node.Type, Id: node.Id})
			return err
		}(),
	} {
		if status.Code(err) != codes.InvalidArgument {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := certificates(t, client, &machinepb.Certificates{ClientCas: []string{c.pem}, Revoked: []string{fingerprint(other.Leaf)}}); err != nil {
		t.Errorf("revoke another: %v", err)
	}
	n.eventually("the other is out", func() bool { return get(n.dial(other)) != nil })
	if err := get(client); err != nil {
		t.Errorf("the admin: %v", err)
	}
}

func TestWhatTheGateWouldNotServeIsNotWritten(t *testing.T) {
	c := newCA(t)
	_, key := c.server("n1")
	for name, bad := range map[string]*machinepb.Certificates{
		"spec.client_cas[0]": {ClientCas: []string{"x"}},
		"spec.client_cas":    {},
		"spec.serving_key":   {ClientCas: []string{c.pem}, ServingKey: key},
	} {
		content, _ := proto.Marshal(bad)
		if err := CheckCertificates(content); err == nil || !strings.HasPrefix(err.Error(), name+": ") || strings.Contains(err.Error(), key) {
			t.Errorf("%s: %v", name, err)
		}
	}
	content, _ := proto.Marshal(&machinepb.Certificates{ClientCas: []string{c.pem}})
	if err := CheckCertificates(content); err != nil {
		t.Errorf("a good one: %v", err)
	}
}
