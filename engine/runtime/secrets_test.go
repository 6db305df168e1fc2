package main

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"strings"
	"testing"
	"time"

	machinepb "github.com/cosi-os/cosi/api/cosi/machine/v1alpha1"
	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	metapb "github.com/cosi-os/cosi/api/cosi/resource/meta"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// serving returns a serving certificate, and a key with a line in it that is nowhere else.
func (a *authority) serving(name string) (certificate, key, canary string) {
	pair := a.client("admin", time.Now().Add(time.Hour))
	template, _ := x509.ParseCertificate(pair.Certificate[0])
	template.DNSNames, template.ExtKeyUsage = []string{name}, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	signer, der := sign(a.t, template, a.cert, a.key)
	pkcs8, err := x509.MarshalPKCS8PrivateKey(signer)
	if err != nil {
		a.t.Fatal(err)
	}
	key = string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}))
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), key, strings.Split(key, "\n")[1]
}

// said collects what a client is told.
type said struct {
	bytes.Buffer
	t *testing.T
}

func (s *said) answer(m proto.Message, err error) {
	fmt.Fprintln(s, m, err, status.Convert(err).Details())
}

// everything calls whatever may show the Certificates, and returns what came of each call.
func (s *said) everything(ctx context.Context, c resourcepb.StateClient, r *resourcepb.Resource) (denied int) {
	count := func(m proto.Message, err error) {
		s.answer(m, err)
		if status.Code(err) == codes.PermissionDenied {
			denied++
		}
	}
	m := r.GetMetadata()
	got, err := c.Get(ctx, &resourcepb.GetRequest{Namespace: m.GetNamespace(), Type: m.GetType(), Id: m.GetId()})
	count(got, err)
	if stream, err := c.List(ctx, &resourcepb.ListRequest{Namespace: m.GetNamespace(), Type: m.GetType()}); err == nil {
		answer, err := stream.Recv()
		count(answer, err)
	}
	id := m.GetId()
	for _, q := range []*resourcepb.WatchRequest{
		{Options: &resourcepb.WatchOptions{BootstrapContents: true}},
		{Options: &resourcepb.WatchOptions{TailEvents: 10}},
		{Id: &id},
	} {
		q.Namespace, q.Type, q.ApiVersion = m.GetNamespace(), m.GetType(), 1
		watching, stop := context.WithTimeout(ctx, patience)
		if stream, err := c.Watch(watching, q); err == nil {
			answer, err := stream.Recv()
			for err == nil && len(answer.GetEvent()) == 0 { // the first says only that the watch stands
				answer, err = stream.Recv()
			}
			count(answer, err)
		}
		stop()
	}
	for _, dry := range []string{"true", "false"} {
		ctx := metadata.AppendToOutgoingContext(ctx, "cosi-dry-run", dry)
		created, err := c.Create(ctx, &resourcepb.CreateRequest{Resource: r})
		count(created, err)
		updated, err := c.Update(ctx, &resourcepb.UpdateRequest{NewResource: r})
		count(updated, err)
		torn, err := c.Teardown(ctx, &resourcepb.TeardownRequest{Namespace: m.GetNamespace(), Type: m.GetType(), Id: m.GetId()})
		count(torn, err)
		both, err := c.TeardownAndDestroy(ctx, &resourcepb.TeardownAndDestroyRequest{Namespace: m.GetNamespace(), Type: m.GetType(), Id: "none"})
		count(both, err)
		destroyed, err := c.Destroy(ctx, &resourcepb.DestroyRequest{Namespace: m.GetNamespace(), Type: m.GetType(), Id: m.GetId()})
		count(destroyed, err)
	}
	return denied
}

// TestASecretIsShownToAdminsOnly: a line of the node's key is searched for in whatever anybody else is told, in what an admin is told whose
// write is refused, in every resource that is not Sensitive, on the console and in the runtime's own words.
func TestASecretIsShownToAdminsOnly(t *testing.T) {
	m := bootWith(t, kept(t), declarations()...)
	ca := newAuthority(t)
	certificate, key, canary := ca.serving("n1")
	good := &machinepb.Certificates{ClientCas: []string{ca.pem}, ServingCertificate: certificate, ServingKey: key}
	local := m.admin()
	create(t, local, "", "config", certificates, "node", good)
	create(t, local, "", "config", "Roles.machine.cosi.dev", "greedy", &machinepb.Role{
		Organisations: []string{"greedy"}, Rules: []*machinepb.Role_Rule{{Verbs: []string{"*"}, Kinds: []string{"*"}}},
	})
	end := time.Now().Add(time.Hour)
	admin := m.connect(ca.client("admin", end))
	eventually(t, "the API answers", func() bool {
		return read(t.Context(), admin, "config", certificates, "node", &machinepb.Certificates{}) == nil
	})

	r := document(t, "config", certificates, "node", good)
	r.Metadata.Version = "1"
	var theirs said
	people := map[string]resourcepb.StateClient{"plugin": resourcepb.NewStateClient(m.dial("mount"))}
	for _, organisation := range []string{"operator", "reader", "greedy"} {
		people[organisation] = m.connect(ca.client(organisation, end))
	}
	for name, c := range people {
		eventually(t, name+" is let in", func() bool {
			_, err := c.Get(t.Context(), &resourcepb.GetRequest{Namespace: "meta", Type: "ResourceDefinitions.meta.cosi.dev", Id: "x"})
			return status.Code(err) == codes.NotFound || name == "plugin"
		})
		if denied := theirs.everything(t.Context(), c, r); denied != 15 {
			t.Errorf("%s is refused %d of 15 calls:\n%s", name, denied, theirs.String())
		}
	}
	if strings.Contains(theirs.String(), canary) {
		t.Error("somebody who is no admin sees the key")
	}

	var refusals said
	for _, yaml := range []string{
		"serving_key: [" + canary + "]", "serving_key: {" + canary + ": 1}", "client_cas: " + canary, "client_cas: [{x: " + canary + "}]", canary,
		"serving_key: \"" + canary, "serving_keyy: " + canary, "- " + canary, "serving_key: !!int " + canary, "serving_certificate: " + canary + "\nserving_key: " + canary,
		"{\"serving_key\": \"" + canary + "\",}", "serving_key: &a " + canary + "\nx: *b", "serving_key: " + canary + "\nserving_key: " + canary, "\t" + canary,
		canary + ": 1", "serving_key: *" + canary, "serving_key: &" + canary + " [*" + canary + "]", "serving_key" + canary + ": 1", "revoked: [" + canary + "]",
	} {
		bad := &resourcepb.Resource{Metadata: r.GetMetadata(), Spec: &resourcepb.Spec{YamlSpec: yaml}}
		answer, err := admin.Update(t.Context(), &resourcepb.UpdateRequest{NewResource: bad})
		if status.Code(err) != codes.InvalidArgument {
			t.Errorf("%s: %v, %v", yaml, answer, err)
		}
		refusals.answer(answer, err)
		if strings.Contains(status.Convert(err).String(), canary) {
			t.Errorf("%s: %v", yaml, err)
		}
	}
	bad := document(t, "config", certificates, "node", &machinepb.Certificates{ClientCas: []string{key}, ServingKey: key})
	bad.Metadata.Version = "1"
	for _, c := range []resourcepb.StateClient{admin, local} {
		refusals.answer(c.Update(t.Context(), &resourcepb.UpdateRequest{NewResource: bad}))
		bad.Spec.ProtoSpec = []byte("\x0a\xff" + canary)
		refusals.answer(c.Update(t.Context(), &resourcepb.UpdateRequest{NewResource: bad}))
	}
	if strings.Contains(refusals.String(), canary) {
		t.Errorf("a refusal quotes the key:\n%s", refusals.String())
	}

	var open said
	eventually(t, "the refused calls are recorded", func() bool {
		open.Reset()
		open.lists(local)
		return strings.Contains(open.String(), "plugin/mount") && strings.Contains(open.String(), "Refused")
	})
	if strings.Contains(open.String(), canary) {
		t.Error("a resource that is not Sensitive holds the key")
	}
	var own said
	own.everything(t.Context(), local, r)
	if !strings.Contains(own.String(), canary) {
		t.Error("the admin does not see the key: this test finds nothing")
	}
	m.mu.Lock()
	console, _ := json.Marshal(m.downs)
	m.mu.Unlock()
	endsCleanly(t, m.cmd)
	if strings.Contains(string(console), canary) || strings.Contains(m.stderr.String(), canary) {
		t.Error("the runtime says the key aloud")
	}
}

// TestASecretOfAKindOfPeopleIsShownToAdminsOnly: as one of the image's.
func TestASecretOfAKindOfPeopleIsShownToAdminsOnly(t *testing.T) {
	const canary = "xyzzy-the-canary"
	m := bootWith(t, kept(t), declarations()...)
	reader, admin := m.reader()
	create(t, admin, "", "meta", definitions, "tokens.example.org", secretToken(t))
	writeToken(t, admin, "a", canary)
	got, err := admin.Get(t.Context(), &resourcepb.GetRequest{Namespace: "config", Type: tokens, Id: "a"})
	if err != nil {
		t.Fatal(err)
	}
	r := got.GetResource()
	var theirs, refusals, open said
	for name, c := range map[string]resourcepb.StateClient{"reader": reader, "plugin": resourcepb.NewStateClient(m.dial("mount"))} {
		if denied := theirs.everything(t.Context(), c, r); denied != 15 {
			t.Errorf("%s is refused %d of 15 calls", name, denied)
		}
	}
	for _, yaml := range []string{
		canary, canary + ": 1", "key: [" + canary + "]", "key: {" + canary + ": 1}", "key: *" + canary, "key: !!int " + canary, "key: \"" + canary, "key: a\nkey: " + canary,
	} {
		answer, err := admin.Update(t.Context(), &resourcepb.UpdateRequest{NewResource: &resourcepb.Resource{Metadata: r.GetMetadata(), Spec: &resourcepb.Spec{YamlSpec: yaml}}})
		if status.Code(err) != codes.InvalidArgument {
			t.Errorf("%s: %v, %v", yaml, answer, err)
		}
		refusals.answer(answer, err)
	}
	eventually(t, "the refused calls are recorded", func() bool {
		open.Reset()
		open.lists(admin)
		return strings.Contains(open.String(), "plugin/mount") && strings.Contains(open.String(), "Refused")
	})
	var own said
	own.everything(t.Context(), admin, r)
	if !strings.Contains(own.String(), canary) {
		t.Error("the admin does not see the secret: this test finds nothing")
	}
	m.mu.Lock()
	console, _ := json.Marshal(m.downs)
	m.mu.Unlock()
	endsCleanly(t, m.cmd)
	for what, text := range map[string]string{
		"who is no admin": theirs.String(), "a refusal": refusals.String(), "another resource": open.String(), "the console": string(console), "the log": m.stderr.String(),
	} {
		if strings.Contains(text, canary) {
			t.Errorf("%s shows the secret", what)
		}
	}
}

// lists reads every resource of every kind that is not Sensitive.
func (s *said) lists(c resourcepb.StateClient) {
	stream, err := c.List(context.Background(), &resourcepb.ListRequest{Namespace: "meta", Type: "ResourceDefinitions.meta.cosi.dev"})
	var kinds []*resourcepb.Resource
	for err == nil {
		var answer *resourcepb.ListResponse
		if answer, err = stream.Recv(); err == nil {
			kinds = append(kinds, answer.GetResource())
		}
	}
	for _, kind := range kinds {
		definition := &metapb.ResourceDefinitionSpec{}
		if proto.Unmarshal(kind.GetSpec().GetProtoSpec(), definition) != nil {
			continue
		}
		if definition.GetSensitivity() == metapb.ResourceDefinitionSpec_SENSITIVE {
			continue
		}
		stream, err := c.List(context.Background(), &resourcepb.ListRequest{Namespace: definition.GetDefaultNamespace(), Type: definition.GetResourceType()})
		for err == nil {
			var answer *resourcepb.ListResponse
			if answer, err = stream.Recv(); err == nil {
				s.answer(answer, nil)
			}
		}
	}
}
