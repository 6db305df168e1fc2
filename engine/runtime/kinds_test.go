package main

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	machinepb "github.com/cosi-os/cosi/api/cosi/machine/v1alpha1"
	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	metapb "github.com/cosi-os/cosi/api/cosi/resource/meta"
	"github.com/cosi-os/cosi/api/declaration"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"
)

const (
	tokens      = "Tokens.example.org"
	definitions = "ResourceDefinitions.meta.cosi.dev"
)

// token is the definition of a kind of people, whose message has one field, key.
func token(t *testing.T) *metapb.ResourceDefinitionSpec {
	t.Helper()
	descriptors, err := proto.Marshal(&descriptorpb.FileDescriptorSet{File: []*descriptorpb.FileDescriptorProto{{
		Name: proto.String("token.proto"), Package: proto.String("example"), Syntax: proto.String("proto3"),
		MessageType: []*descriptorpb.DescriptorProto{{Name: proto.String("Token"), Field: []*descriptorpb.FieldDescriptorProto{{
			Name: proto.String("key"), Number: proto.Int32(1),
			Type: descriptorpb.FieldDescriptorProto_TYPE_STRING.Enum(), Label: descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL.Enum(),
		}}}},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	return &metapb.ResourceDefinitionSpec{
		ResourceType: tokens, DisplayType: "Token", DefaultNamespace: "config", Message: "example.Token", Descriptors: descriptors,
	}
}

// secretToken is token with the sensitivity of a secret.
func secretToken(t *testing.T) *metapb.ResourceDefinitionSpec {
	d := token(t)
	d.Sensitivity = metapb.ResourceDefinitionSpec_SENSITIVE
	return d
}

// redefine replaces a definition.
func redefine(t *testing.T, c resourcepb.StateClient, d *metapb.ResourceDefinitionSpec) {
	t.Helper()
	id := strings.ToLower(d.GetResourceType())
	got, err := c.Get(t.Context(), &resourcepb.GetRequest{Namespace: "meta", Type: definitions, Id: id})
	if err != nil {
		t.Fatal(err)
	}
	r := document(t, "meta", definitions, id, d)
	r.Metadata = got.GetResource().GetMetadata()
	if _, err := c.Update(t.Context(), &resourcepb.UpdateRequest{NewResource: r}); err != nil {
		t.Fatal(err)
	}
}

// writeToken writes a resource of the kind in the form of people.
func writeToken(t *testing.T, c resourcepb.StateClient, id, key string) {
	t.Helper()
	r := &resourcepb.Resource{
		Metadata: &resourcepb.Metadata{Namespace: "config", Type: tokens, Id: id, Phase: "running"}, Spec: &resourcepb.Spec{YamlSpec: "key: " + key},
	}
	if _, err := c.Create(t.Context(), &resourcepb.CreateRequest{Resource: r}); err != nil {
		t.Fatal(err)
	}
}

// reader lets a reader in, and returns the reader and the local admin.
func (m *machine) reader() (reader, admin resourcepb.StateClient) {
	m.t.Helper()
	ca, admin := newAuthority(m.t), m.admin()
	old, err := admin.Get(m.t.Context(), &resourcepb.GetRequest{Namespace: "config", Type: certificates, Id: "node"})
	anchors := document(m.t, "config", certificates, "node", &machinepb.Certificates{ClientCas: []string{ca.pem}})
	if err == nil {
		anchors.Metadata = old.GetResource().GetMetadata()
		_, err = admin.Update(m.t.Context(), &resourcepb.UpdateRequest{NewResource: anchors})
	} else {
		_, err = admin.Create(m.t.Context(), &resourcepb.CreateRequest{Resource: anchors})
	}
	if err != nil {
		m.t.Fatal(err)
	}
	reader = m.connect(ca.client("reader", time.Now().Add(time.Hour)))
	eventually(m.t, "the reader is let in", func() bool {
		return read(m.t.Context(), reader, "status", machineStatuses, "machine", &machinepb.MachineStatus{}) == nil
	})
	return reader, admin
}

// watchTokens returns what a watch says until it ends.
func watchTokens(ctx context.Context, c resourcepb.StateClient) func() (string, error) {
	stream, err := c.Watch(ctx, &resourcepb.WatchRequest{Namespace: "config", Type: tokens, ApiVersion: 1})
	if err == nil {
		_, err = stream.Recv() // established, or why not
	}
	return func() (string, error) {
		var all strings.Builder
		for err == nil {
			var answer *resourcepb.WatchResponse
			if answer, err = stream.Recv(); err == nil {
				all.WriteString(answer.String())
			}
		}
		return all.String(), err
	}
}

func TestAWatchDoesNotOutliveTheRightToIt(t *testing.T) {
	m := boot(t, declarations()...)
	reader, admin := m.reader()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if said, err := watchTokens(ctx, reader)(); status.Code(err) != codes.PermissionDenied {
		t.Errorf("a reader watches a kind that is not defined: %s, %v", said, err)
	}
	if said, err := watchTokens(ctx, admin)(); status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), "unknown kind") {
		t.Errorf("an admin watches a kind that is not defined: %s, %v", said, err)
	}
	create(t, admin, "", "meta", definitions, "tokens.example.org", token(t))
	rest := watchTokens(ctx, reader)
	writeToken(t, admin, "a", "open")
	redefine(t, admin, secretToken(t))
	writeToken(t, admin, "b", "canary")
	if said, err := rest(); status.Code(err) != codes.PermissionDenied || strings.Contains(said, "canary") {
		t.Errorf("the watch says %s and ends with %v; want PERMISSION_DENIED", said, err)
	}
}

// TestASecretOutlivesItsDefinition: the image has another kind of that name now, which is none.
func TestASecretOutlivesItsDefinition(t *testing.T) {
	disk := kept(t)
	m := bootWith(t, disk)
	create(t, m.admin(), "", "meta", definitions, "tokens.example.org", secretToken(t))
	writeToken(t, m.admin(), "a", "canary")
	m.kill()

	m = bootWith(t, disk, broughtBy(t, token(t)))
	reader, admin := m.reader()
	var theirs, own said
	theirs.shows(t, reader, tokens)
	if own.shows(t, admin, tokens); strings.Contains(theirs.String(), "canary") || !strings.Contains(own.String(), "canary") {
		t.Errorf("the reader sees\n%s\nthe admin\n%s", theirs.String(), own.String())
	}
	if text := theirs.String(); strings.Count(text, "PermissionDenied") != 3 {
		t.Errorf("the reader is told\n%s", text)
	}
	stream, err := admin.List(t.Context(), &resourcepb.ListRequest{Namespace: "meta", Type: definitions})
	for err == nil {
		_, err = stream.Recv()
	}
	if !errors.Is(err, io.EOF) {
		t.Errorf("the definitions: %v", err)
	}
}

// broughtBy is a plugin whose image brings the kind that d defines.
func broughtBy(t *testing.T, d *metapb.ResourceDefinitionSpec) *declaration.Declaration {
	t.Helper()
	options := &descriptorpb.MessageOptions{}
	proto.SetExtension(options, metapb.E_Kind, &metapb.ResourceDefinitionSpec{ResourceType: d.GetResourceType(), DefaultNamespace: "config"})
	set := &descriptorpb.FileDescriptorSet{}
	if err := proto.Unmarshal(d.GetDescriptors(), set); err != nil {
		t.Fatal(err)
	}
	set.File[0].MessageType[0].Options = options
	descriptors, err := proto.Marshal(set)
	if err != nil {
		t.Fatal(err)
	}
	return &declaration.Declaration{Name: "token", Inputs: []declaration.Input{{Type: d.GetResourceType()}}, Definitions: descriptors}
}

// TestAnImageThatDoesNotUnderstandSaysSo: and goes on serving what another image has left.
func TestAnImageThatDoesNotUnderstandSaysSo(t *testing.T) {
	disk := kept(t)
	m := bootWith(t, disk, broughtBy(t, token(t)), workshop(t, widgetsBefore))
	writeToken(t, m.admin(), "a", "x")
	old := version{t, m.admin()}
	old.write(widgets, "a", "size: small")
	old.write(gadgets, "a", "key: x")
	if _, err := old.Get(t.Context(), &resourcepb.GetRequest{Namespace: "meta", Type: definitions, Id: "widgets.example.org"}); err != nil { // which publishes it
		t.Fatal(err)
	}
	m.kill()

	other := token(t)
	set := &descriptorpb.FileDescriptorSet{}
	if err := proto.Unmarshal(other.GetDescriptors(), set); err != nil {
		t.Fatal(err)
	}
	set.File[0].MessageType[0].Field[0].Number = proto.Int32(2)
	var err error
	if other.Descriptors, err = proto.Marshal(set); err != nil {
		t.Fatal(err)
	}
	m = bootWith(t, disk, append(declarations(), broughtBy(t, other), workshop(t, widgetsAfter))...)
	m.plug("token").ready()
	m.plug("workshop").ready()
	userdata, ca := m.plug("userdata"), newAuthority(t)
	create(t, userdata.state, "", "config", certificates, "node", &machinepb.Certificates{ClientCas: []string{ca.pem}})
	admin := m.connect(ca.client("admin", time.Now().Add(time.Hour)))
	comesUp(t, m, userdata, admin)
	said := &machinepb.StateStatus{}
	eventually(t, "the status says so", func() bool {
		return read(t.Context(), admin, "status", "StateStatuses.machine.cosi.dev", "state", said) == nil && said.GetReason() != ""
	})
	const want = "Tokens.example.org: 1 of 1 resources do not fit: a: spec: has fields that example.Token does not have (3 bytes): is the client newer than the node?; " +
		"Gadgets.example.org: this image does not have the kind, and 1 resources are of before"
	if !said.GetDurable() || said.GetReason() != "Misfits" || said.GetMessage() != want {
		t.Errorf("the status is %v; want %q", said, want)
	}
	eventually(t, "the console says so", func() bool { return m.shows("of another image: Tokens.example.org: 1 of 1") })
	got, err := admin.Get(t.Context(), &resourcepb.GetRequest{Namespace: "config", Type: tokens, Id: "a"})
	if err != nil || string(got.GetResource().GetSpec().GetProtoSpec()) != "\n\x01x" {
		t.Errorf("the resource is %v, %v; want it as it was", got, err)
	}
	writeToken(t, admin, "b", "y")
	if _, err := admin.Destroy(t.Context(), &resourcepb.DestroyRequest{Namespace: "config", Type: tokens, Id: "a"}); err != nil {
		t.Errorf("it cannot be removed: %v", err)
	}
}

// shows collects what Get, List and Watch say of the token "a".
func (s *said) shows(t *testing.T, c resourcepb.StateClient, typ string) {
	t.Helper()
	got, err := c.Get(t.Context(), &resourcepb.GetRequest{Namespace: "config", Type: typ, Id: "a"})
	s.answer(got, err)
	listed, err := c.List(t.Context(), &resourcepb.ListRequest{Namespace: "config", Type: typ})
	if err == nil {
		answer, err := listed.Recv()
		s.answer(answer, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	watched, err := c.Watch(ctx, &resourcepb.WatchRequest{Namespace: "config", Type: typ, Options: &resourcepb.WatchOptions{BootstrapContents: true}})
	for err == nil {
		var answer *resourcepb.WatchResponse
		if answer, err = watched.Recv(); len(answer.GetEvent()) > 0 || err != nil {
			s.answer(answer, err)
			break
		}
	}
}
