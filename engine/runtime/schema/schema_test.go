package schema_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	machinepb "github.com/cosi-os/cosi/api/cosi/machine/v1alpha1"
	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	metapb "github.com/cosi-os/cosi/api/cosi/resource/meta"
	servicepb "github.com/cosi-os/cosi/api/cosi/service/v1alpha1"
	storagepb "github.com/cosi-os/cosi/api/cosi/storage/v1alpha1"
	"github.com/cosi-os/cosi/api/declaration"
	"github.com/cosi-os/cosi/api/kinds/builtin"
	"github.com/cosi-os/cosi/api/kinds/descriptors"
	"github.com/cosi-os/cosi/engine/runtime/router"
	"github.com/cosi-os/cosi/engine/runtime/schema"
	"github.com/cosi-os/cosi/engine/runtime/state"
	"github.com/cosi-os/cosi/engine/runtime/state/memory"
	"github.com/cosi-os/cosi/engine/runtime/state/statetest"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/types/descriptorpb"
)

func newState(open string) *schema.State {
	return schema.New(memory.New(memory.Options{}), builtin.Set(), open)
}

func resource(namespace, typ, id, yaml string, content proto.Message) *resourcepb.Resource {
	spec := &resourcepb.Spec{YamlSpec: yaml}
	if content != nil {
		spec.ProtoSpec, _ = proto.Marshal(content)
	}
	return &resourcepb.Resource{Metadata: &resourcepb.Metadata{Namespace: namespace, Type: typ, Id: id, Phase: state.PhaseRunning}, Spec: spec}
}

func mount(yaml string) *resourcepb.Resource {
	return resource("config", "MountPoints.storage.cosi.dev", "data", yaml, nil)
}

func TestEitherFormGivesBoth(t *testing.T) {
	point := &storagepb.MountPoint{Source: "tmpfs", Target: "/var/x", Fstype: "tmpfs"}
	want := "source: tmpfs\ntarget: /var/x\nfstype: tmpfs\n"
	for name, r := range map[string]*resourcepb.Resource{
		"yaml":                        mount(`{"source":"tmpfs","target":"/var/x","fstype":"tmpfs"}`),
		"proto":                       resource("config", "MountPoints.storage.cosi.dev", "data", "", point),
		"both, of which proto counts": resource("config", "MountPoints.storage.cosi.dev", "data", "source: other", point),
	} {
		got, err := newState("").Create(context.Background(), r, state.WriteOptions{})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		back := &storagepb.MountPoint{}
		if err := proto.Unmarshal(got.GetSpec().GetProtoSpec(), back); err != nil || !proto.Equal(back, point) {
			t.Errorf("%s: proto_spec = %v, %v; want %v", name, back, err, point)
		}
		if got.GetSpec().GetYamlSpec() != want {
			t.Errorf("%s: yaml_spec = %q; want %q", name, got.GetSpec().GetYamlSpec(), want)
		}
	}
}

func TestWritesThatAreRefused(t *testing.T) {
	unknown, _ := proto.Marshal(&storagepb.MountPointStatus{ObservedVersion: "tmpfs", Message: "x", Data: "y"})
	for name, c := range map[string]struct {
		r    *resourcepb.Resource
		want []string
	}{
		"unknown type":             {resource("config", "MountPoint.storage.cosi.de", "x", "", nil), []string{"unknown kind", "mountpoints"}},
		"alias":                    {resource("config", "mount", "x", "", nil), []string{"the full name is needed here: MountPoints.storage.cosi.dev"}},
		"wrong namespace":          {resource("status", "MountPoints.storage.cosi.dev", "x", "", nil), []string{`lives in the namespace "config"`}},
		"unknown yaml field":       {mount("sorce: tmpfs"), []string{"spec.sorce"}},
		"wrong yaml type":          {mount("source: [1]"), []string{"spec.source"}},
		"broken yaml":              {mount("source: ["), []string{"spec"}},
		"broken rules":             {mount("{source: tmpfs, target: /etc, fstype: tmpfs, flags: [ro, bogus]}"), []string{"spec.target", "spec.flags[1]"}},
		"missing fields":           {mount("{}"), []string{"spec.source", "spec.target", "spec.fstype"}},
		"bytes of a newer message": {&resourcepb.Resource{Metadata: mount("").Metadata, Spec: &resourcepb.Spec{ProtoSpec: unknown}}, []string{"spec", "newer than the node"}},
		"no message":               {&resourcepb.Resource{Metadata: mount("").Metadata, Spec: &resourcepb.Spec{ProtoSpec: []byte("\xff")}}, []string{"spec"}},
		"nested rule":              {resource("config", "Addresses.network.cosi.dev", "a", "{address: 192.0.2.1/24, link: {mac: zz}}", nil), []string{"spec.link.mac"}},
		"no oneof":                 {resource("config", "Addresses.network.cosi.dev", "a", "{address: 192.0.2.1/24, link: {}}", nil), []string{"spec.link"}},
	} {
		_, err := newState("").Create(context.Background(), c.r, state.WriteOptions{})
		if !errors.Is(err, state.ErrInvalid) {
			t.Errorf("%s: %v; want ErrInvalid", name, err)
			continue
		}
		text := err.Error()
		var fields state.FieldErrors
		if errors.As(err, &fields) {
			text = ""
			for _, f := range fields {
				text += f.Error() + "\n"
			}
		}
		for _, want := range c.want {
			if !strings.Contains(text, want) {
				t.Errorf("%s: %q does not say %q", name, text, want)
			}
		}
	}
}

func TestAnOpenNamespaceTakesAnyType(t *testing.T) {
	r := resource("default", "Whatever.example.org", "x", "a: 1", nil)
	if _, err := newState("default").Create(context.Background(), r, state.WriteOptions{}); err != nil {
		t.Error(err)
	}
	if _, err := newState("").Create(context.Background(), r, state.WriteOptions{}); !errors.Is(err, state.ErrInvalid) {
		t.Errorf("on a node: %v; want ErrInvalid", err)
	}
}

func TestWatchesOfWhatIsNotDefinedAreRefused(t *testing.T) {
	s := newState("default")
	for want, kind := range map[string]state.Kind{
		"unknown kind":                 {Namespace: "config", Type: "Whatever.example.org"},
		`lives in the namespace "conf`: {Namespace: "elsewhere", Type: "MountPoints.storage.cosi.dev"},
		"the full name is needed here": {Namespace: "config", Type: "mount"},
	} {
		if _, err := s.Watch(t.Context(), state.WatchRequest{Kind: kind}); !errors.Is(err, state.ErrInvalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v; want ErrInvalid that says %q", kind, err, want)
		}
	}
	for _, kind := range []state.Kind{{Namespace: "config", Type: "MountPoints.storage.cosi.dev"}, {Namespace: "default", Type: "Whatever.example.org"}} {
		if _, err := s.Watch(t.Context(), state.WatchRequest{Kind: kind}); err != nil {
			t.Errorf("%v: %v", kind, err)
		}
	}
}

func TestDefinitionsAreReadWithTheirDescriptors(t *testing.T) {
	s := newState("")
	all, err := s.List(context.Background(), schema.Definitions, state.Query{})
	if err != nil || len(all) != len(builtin.Set().All()) {
		t.Fatalf("%d definitions, %v; want %d", len(all), err, len(builtin.Set().All()))
	}
	for _, listed := range all {
		r := listed.Message()
		definition := &metapb.ResourceDefinitionSpec{}
		if err := proto.Unmarshal(r.GetSpec().GetProtoSpec(), definition); err != nil {
			t.Fatal(err)
		}
		kind, err := descriptors.Kind(definition)
		if err != nil || kind.ID() != r.GetMetadata().GetId() || r.GetMetadata().GetOwner() != "runtime" {
			t.Errorf("%v: kind %v, %v", r.GetMetadata(), kind, err)
		}
	}
	namespaces, err := s.List(context.Background(), schema.Namespaces, state.Query{})
	if err != nil || len(namespaces) != len(schema.NamespaceDescriptions()) {
		t.Errorf("%d namespaces, %v", len(namespaces), err)
	}
}

// own is a kind that is not linked in: message Widget { string size = 1; } of example.org.
func own(t testing.TB) (*metapb.ResourceDefinitionSpec, []byte) {
	t.Helper()
	options := &descriptorpb.MessageOptions{}
	definition := &metapb.ResourceDefinitionSpec{ResourceType: "Widgets.example.org", DisplayType: "Widget", DefaultNamespace: "config", Message: "example.Widget"}
	proto.SetExtension(options, metapb.E_Kind, definition)
	file := &descriptorpb.FileDescriptorProto{
		Name: proto.String("example/widget.proto"), Package: proto.String("example"), Syntax: proto.String("proto3"),
		Dependency: []string{"cosi/resource/meta/meta.proto"},
		MessageType: []*descriptorpb.DescriptorProto{{
			Name: proto.String("Widget"), Options: options,
			Field: []*descriptorpb.FieldDescriptorProto{{
				Name: proto.String("size"), Number: proto.Int32(1), Type: descriptorpb.FieldDescriptorProto_TYPE_STRING.Enum(), Label: descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL.Enum(),
			}},
		}},
	}
	set := &descriptorpb.FileDescriptorSet{File: []*descriptorpb.FileDescriptorProto{
		protodesc.ToFileDescriptorProto(descriptorpb.File_google_protobuf_descriptor_proto),
		protodesc.ToFileDescriptorProto(metapb.File_cosi_resource_meta_meta_proto), file,
	}}
	data, err := proto.Marshal(set)
	if err != nil {
		t.Fatal(err)
	}
	definition = proto.CloneOf(definition)
	definition.Descriptors = data
	return definition, data
}

func TestAUserDefinesAKind(t *testing.T) {
	ctx, s := context.Background(), newState("")
	definition, _ := own(t)
	widget := resource("config", "Widgets.example.org", "w", "size: big", nil)
	if _, err := s.Create(ctx, widget, state.WriteOptions{}); !errors.Is(err, state.ErrInvalid) {
		t.Fatalf("before it is defined: %v; want ErrInvalid", err)
	}
	r := resource("meta", schema.Definitions.Type, "widgets.example.org", "", definition)
	if _, err := s.Create(ctx, r, state.WriteOptions{DryRun: true}); err != nil {
		t.Fatal(err)
	}
	if s.Definition("Widgets.example.org") != nil {
		t.Fatal("a dry run defined the kind")
	}
	if _, err := s.Create(ctx, r, state.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Create(ctx, widget, state.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Create(ctx, resource("config", "Widgets.example.org", "v", "sise: big", nil), state.WriteOptions{}); !errors.Is(err, state.ErrInvalid) {
		t.Errorf("a misspelt field: %v; want ErrInvalid", err)
	}
	p := state.Pointer{Kind: schema.Definitions, ID: "widgets.example.org"}
	if err := s.Destroy(ctx, p, state.WriteOptions{}); !errors.Is(err, state.ErrInvalid) {
		t.Errorf("with a widget left: %v; want ErrInvalid", err)
	}
	if err := s.Destroy(ctx, state.PointerTo(widget), state.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := s.Destroy(ctx, p, state.WriteOptions{}); err != nil || s.Definition("Widgets.example.org") != nil {
		t.Errorf("destroy: %v, definition %v", err, s.Definition("Widgets.example.org"))
	}
}

func TestDefinitionsThatAreRefused(t *testing.T) {
	for name, change := range map[string]func(*metapb.ResourceDefinitionSpec, *resourcepb.Metadata){
		"no descriptors":    func(d *metapb.ResourceDefinitionSpec, _ *resourcepb.Metadata) { d.Descriptors = nil },
		"no such message":   func(d *metapb.ResourceDefinitionSpec, _ *resourcepb.Metadata) { d.Message = "example.Gadget" },
		"taken alias":       func(d *metapb.ResourceDefinitionSpec, _ *resourcepb.Metadata) { d.Aliases = []string{"mount"} },
		"unknown namespace": func(d *metapb.ResourceDefinitionSpec, _ *resourcepb.Metadata) { d.DefaultNamespace = "elsewhere" },
		"another id":        func(_ *metapb.ResourceDefinitionSpec, m *resourcepb.Metadata) { m.Id = "gadgets" },
	} {
		definition, _ := own(t)
		r := resource("meta", schema.Definitions.Type, "widgets.example.org", "", nil)
		change(definition, r.Metadata)
		r.Spec.ProtoSpec, _ = proto.Marshal(definition)
		if _, err := newState("").Create(context.Background(), r, state.WriteOptions{}); !errors.Is(err, state.ErrInvalid) {
			t.Errorf("%s: %v; want ErrInvalid", name, err)
		}
	}
}

func TestLoadAddsWhatIsNotLinkedIn(t *testing.T) {
	_, data := own(t)
	set := builtin.Set()
	before := len(set.All())
	storage, err := descriptors.Of(set.ByType("MountPoints.storage.cosi.dev"))
	if err != nil {
		t.Fatal(err)
	}
	declarations := []*declaration.Declaration{{Name: "a"}, {Name: "b", Definitions: storage}, {Name: "c", Definitions: data}, {Name: "d", Definitions: data}}
	if err := schema.Load(set, declarations); err != nil {
		t.Fatal(err)
	}
	if len(set.All()) != before+1 || set.ByType("Widgets.example.org") == nil {
		t.Errorf("%d kinds, want %d", len(set.All()), before+1)
	}
	if err := schema.Load(set, []*declaration.Declaration{{Name: "e", Definitions: []byte("\xff")}}); err == nil || !strings.Contains(err.Error(), "plugin e") {
		t.Errorf("broken definitions: %v", err)
	}
}

func TestAllTheWaysToTheSameDefinition(t *testing.T) {
	ctx, p := context.Background(), state.Pointer{Kind: schema.Definitions, ID: "mountpoints.storage.cosi.dev"}
	s := newState("")
	got, err := s.Get(ctx, p)
	if err != nil {
		t.Fatal(err)
	}
	definition := &metapb.ResourceDefinitionSpec{}
	if err := proto.Unmarshal(got.GetSpec().GetProtoSpec(), definition); err != nil {
		t.Fatal(err)
	}
	want, err := descriptors.Definition(builtin.Set().ByType("MountPoints.storage.cosi.dev"))
	if err != nil || !proto.Equal(definition, want) {
		t.Errorf("the definition that is published differs from the kind's own (%v)", err)
	}
	watch, err := newState("").Watch(ctx, state.WatchRequest{Kind: p.Kind, ID: &p.ID})
	if err != nil {
		t.Fatal(err)
	}
	if events, err := watch.Next(ctx); err != nil || events[0].GetEventType() != resourcepb.EventType_CREATED {
		t.Errorf("watch: %v, %v", events, err)
	}
	own, _ := own(t)
	if _, err := s.Create(ctx, resource("meta", schema.Definitions.Type, "widgets.example.org", "", own), state.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	all, err := s.List(ctx, schema.Definitions, state.Query{})
	if err != nil || len(all) != len(builtin.Set().All())+1 {
		t.Errorf("%d definitions, %v", len(all), err)
	}
}

func TestLayersKeepTheRulesOfAState(t *testing.T) {
	limits := func(state.Kind) memory.Limits { return memory.Limits{Events: statetest.HistoryEvents} }
	statetest.Run(t, func(*testing.T) state.State {
		return schema.New(router.New(memory.New(memory.Options{Limits: limits}), nil), builtin.Set(), "default")
	})
}

func BenchmarkPublishOne(b *testing.B) {
	for b.Loop() {
		if _, err := newState("").Get(context.Background(), state.Pointer{Kind: schema.Definitions, ID: "mountpoints.storage.cosi.dev"}); err != nil {
			b.Fatal(err)
		}
	}
}

// The figures behind "lazily": what a boot would pay.
func BenchmarkFirstWriteWithRules(b *testing.B) {
	for b.Loop() {
		if _, err := newState("").Create(context.Background(), mount("{source: tmpfs, target: /var/x, fstype: tmpfs}"), state.WriteOptions{}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkFirstWriteWithoutRules(b *testing.B) {
	for b.Loop() {
		r := resource("status", "MachineStatuses.machine.cosi.dev", "machine", "", &machinepb.MachineStatus{Ready: true})
		if _, err := newState("").Create(context.Background(), r, state.WriteOptions{}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkNextWrites(b *testing.B) {
	s := newState("")
	for name, r := range map[string]*resourcepb.Resource{
		"rules": mount("{source: tmpfs, target: /var/x, fstype: tmpfs}"),
		"log":   resource("logs", "Logs.service.cosi.dev", "x", "", &servicepb.LogLine{Stream: "stdout", Line: "a line of a process that is neither long nor short"}),
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if _, err := s.Create(context.Background(), r, state.WriteOptions{DryRun: true}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkPublish(b *testing.B) {
	for b.Loop() {
		if _, err := newState("").List(context.Background(), schema.Definitions, state.Query{}); err != nil {
			b.Fatal(err)
		}
	}
}
