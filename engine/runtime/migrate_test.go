package main

import (
	"context"
	"strings"
	"testing"

	"github.com/bufbuild/protocompile"
	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	"github.com/cosi-os/cosi/api/declaration"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
)

const (
	widgets = "Widgets.example.org"
	gadgets = "Gadgets.example.org"
)

// Two versions of what a plugin brings: in the second a field has a new name, one is new, and a kind is gone.
const (
	widgetsBefore = `
message Widget {
  option (cosi.resource.meta.kind) = {resource_type: "Widgets.example.org", display_type: "Widget", default_namespace: "config"};
  string size = 1;
}
message Gadget {
  option (cosi.resource.meta.kind) = {resource_type: "Gadgets.example.org", display_type: "Gadget", default_namespace: "config"};
  string key = 1;
}`
	widgetsAfter = `
message Widget {
  option (cosi.resource.meta.kind) = {resource_type: "Widgets.example.org", display_type: "Widget", default_namespace: "config"};
  string extent = 1 [json_name = "size"];
  string finish = 2;
}`
)

// workshop is a plugin whose kinds are the messages of source.
func workshop(t *testing.T, source string) *declaration.Declaration {
	t.Helper()
	compiler := protocompile.Compiler{Resolver: protocompile.ResolverFunc(func(path string) (protocompile.SearchResult, error) {
		if path == "workshop.proto" {
			text := "syntax = \"proto3\";\npackage example;\nimport \"cosi/resource/meta/meta.proto\";\n" + source
			return protocompile.SearchResult{Source: strings.NewReader(text)}, nil
		}
		file, err := protoregistry.GlobalFiles.FindFileByPath(path)
		return protocompile.SearchResult{Desc: file}, err
	})}
	files, err := compiler.Compile(t.Context(), "workshop.proto")
	if err != nil {
		t.Fatal(err)
	}
	set := &descriptorpb.FileDescriptorSet{}
	for _, name := range []string{"google/protobuf/descriptor.proto", "cosi/resource/meta/meta.proto"} {
		file, err := protoregistry.GlobalFiles.FindFileByPath(name)
		if err != nil {
			t.Fatal(err)
		}
		set.File = append(set.File, protodesc.ToFileDescriptorProto(file))
	}
	set.File = append(set.File, protodesc.ToFileDescriptorProto(files[0]))
	data, err := proto.Marshal(set)
	if err != nil {
		t.Fatal(err)
	}
	return &declaration.Declaration{Name: "workshop", Inputs: []declaration.Input{{Type: widgets, Finalizers: true}}, Definitions: data}
}

// version is a runtime of one of them.
type version struct {
	t *testing.T
	resourcepb.StateClient
}

// migrate runs what check says on a runtime with a version of the kinds, and ends that as a loss of power does.
func migrate(t *testing.T, name string, boot func() *machine, check func(v version)) {
	t.Run(name, func(t *testing.T) {
		m := boot()
		defer m.kill()
		check(version{t, m.admin()})
	})
}

// write writes a content that must be taken, as documents do.
func (v version) write(typ, id, yaml string) {
	v.t.Helper()
	r := &resourcepb.Resource{
		Metadata: &resourcepb.Metadata{Namespace: "config", Type: typ, Id: id, Phase: "running"}, Spec: &resourcepb.Spec{YamlSpec: yaml},
	}
	old, err := v.Get(v.t.Context(), &resourcepb.GetRequest{Namespace: "config", Type: typ, Id: id})
	if err == nil {
		r.Metadata = old.GetResource().GetMetadata()
		_, err = v.Update(v.t.Context(), &resourcepb.UpdateRequest{NewResource: r})
	} else {
		_, err = v.Create(v.t.Context(), &resourcepb.CreateRequest{Resource: r})
	}
	if err != nil {
		v.t.Errorf("%s/%s: %s: %v", typ, id, yaml, err)
	}
}

// refuses checks that a content is not taken.
func (v version) refuses(typ, yaml, why string) {
	v.t.Helper()
	_, err := v.Create(v.t.Context(), &resourcepb.CreateRequest{Resource: &resourcepb.Resource{
		Metadata: &resourcepb.Metadata{Namespace: "config", Type: typ, Id: "refused", Phase: "running"}, Spec: &resourcepb.Spec{YamlSpec: yaml},
	}})
	if status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), why) {
		v.t.Errorf("%s: %s: %v; want it refused: %s", typ, yaml, err, why)
	}
}

// holds turns a finalizer's update, which leaves the content alone, into what the plugin does between two versions.
func (v version) holds(id string) {
	v.t.Helper()
	got, err := v.Get(v.t.Context(), &resourcepb.GetRequest{Namespace: "config", Type: widgets, Id: id})
	if err == nil {
		got.Resource.Metadata.Finalizers = append(got.Resource.Metadata.Finalizers, "workshop")
		_, err = v.Update(v.t.Context(), &resourcepb.UpdateRequest{NewResource: got.Resource})
	}
	if err != nil {
		v.t.Errorf("a finalizer on %s: %v", id, err)
	}
}

// shows checks what Get, List and, where the image has the kind, Watch say: for each id the YAML, and the bytes it stands for.
func (v version) shows(typ string, watched bool, want map[string]string) {
	v.t.Helper()
	for id, yaml := range want {
		got, err := v.Get(v.t.Context(), &resourcepb.GetRequest{Namespace: "config", Type: typ, Id: id})
		if text := got.GetResource().GetSpec().GetYamlSpec(); err != nil || text != yaml {
			v.t.Errorf("Get %s/%s = %q, %v; want %q", typ, id, text, err, yaml)
		}
	}
	listed, err := v.List(v.t.Context(), &resourcepb.ListRequest{Namespace: "config", Type: typ})
	if err != nil {
		v.t.Fatal(err)
	}
	v.same("List", want, func() (*resourcepb.Resource, error) {
		answer, err := listed.Recv()
		return answer.GetResource(), err
	})
	if !watched {
		return
	}
	ctx, cancel := context.WithTimeout(v.t.Context(), patience)
	defer cancel()
	events, err := v.Watch(ctx, &resourcepb.WatchRequest{
		Namespace: "config", Type: typ, ApiVersion: 1, Options: &resourcepb.WatchOptions{BootstrapContents: true},
	})
	if err != nil {
		v.t.Fatal(err)
	}
	v.same("Watch", want, func() (*resourcepb.Resource, error) {
		for {
			answer, err := events.Recv()
			if err != nil {
				return nil, err
			}
			for _, e := range answer.GetEvent() {
				if e.GetEventType() == resourcepb.EventType_CREATED {
					return e.GetResource(), nil
				}
			}
		}
	})
}

func (v version) same(what string, want map[string]string, next func() (*resourcepb.Resource, error)) {
	v.t.Helper()
	for range want {
		r, err := next()
		if err != nil {
			v.t.Errorf("%s: %v", what, err)
			return
		}
		id := r.GetMetadata().GetId()
		if yaml, expected := want[id]; !expected || r.GetSpec().GetYamlSpec() != yaml {
			v.t.Errorf("%s: %s is %q; want %q", what, id, r.GetSpec().GetYamlSpec(), yaml)
		}
	}
}

// tells checks that the last events of the history, which tell of what was there before them, too, name no field by a word.
func (v version) tells(last int, never string) {
	v.t.Helper()
	ctx, cancel := context.WithTimeout(v.t.Context(), patience)
	defer cancel()
	events, err := v.Watch(ctx, &resourcepb.WatchRequest{
		Namespace: "config", Type: widgets, ApiVersion: 1, Options: &resourcepb.WatchOptions{TailEvents: int32(last)},
	})
	for seen := 0; seen < last && err == nil; {
		var answer *resourcepb.WatchResponse
		answer, err = events.Recv()
		for _, e := range answer.GetEvent() {
			seen++
			if all := e.GetResource().GetSpec().GetYamlSpec() + e.GetOld().GetSpec().GetYamlSpec(); strings.Contains(all, never) {
				v.t.Errorf("an event says %q; want no %q", all, never)
			}
		}
	}
	if err != nil {
		v.t.Error(err)
	}
}

// TestResourcesMigrateForwardAndBack: one state directory is used by the version before, the one after, the one before again, and the one after.
// A field goes by the name that it has in the image that runs. What one has written and the other does not know is kept.
func TestResourcesMigrateForwardAndBack(t *testing.T) {
	disk := kept(t)
	before := func() *machine { return bootWith(t, disk, workshop(t, widgetsBefore)) }
	after := func() *machine { return bootWith(t, disk, workshop(t, widgetsAfter)) }
	migrate(t, "before", before, func(v version) {
		v.write(widgets, "old", "size: small")
		v.write(widgets, "changed", "size: small")
		v.write(gadgets, "a", "key: x")
		v.shows(widgets, true, map[string]string{"old": "size: small\n", "changed": "size: small\n"})
	})
	migrate(t, "after", after, func(v version) {
		v.shows(widgets, true, map[string]string{"old": "extent: small\n", "changed": "extent: small\n"})
		v.holds("old")
		v.write(widgets, "changed", "extent: large")
		v.write(widgets, "document", "size: medium") // one of before
		v.write(widgets, "new", "{extent: large, finish: matt}")
		v.shows(widgets, true, map[string]string{
			"old": "extent: small\n", "changed": "extent: large\n", "document": "extent: medium\n", "new": "extent: large\nfinish: matt\n",
		})
		v.shows(gadgets, false, map[string]string{"a": "key: x\n"})
		v.refuses(gadgets, "key: y", `unknown kind "Gadgets.example.org"`)
	})
	migrate(t, "back", before, func(v version) {
		v.shows(widgets, true, map[string]string{"old": "size: small\n", "changed": "size: large\n", "document": "size: medium\n", "new": "size: large\n"})
		v.tells(4, "extent")
		v.holds("new")
		v.refuses(widgets, "extent: x", "unknown field")
		v.shows(gadgets, true, map[string]string{"a": "key: x\n"})
		v.write(gadgets, "a", "key: z")
	})
	migrate(t, "forward again", after, func(v version) {
		v.shows(widgets, true, map[string]string{
			"old": "extent: small\n", "changed": "extent: large\n", "document": "extent: medium\n", "new": "extent: large\nfinish: matt\n",
		})
		v.shows(gadgets, false, map[string]string{"a": "key: z\n"})
		if _, err := v.Destroy(v.t.Context(), &resourcepb.DestroyRequest{Namespace: "config", Type: gadgets, Id: "a"}); err != nil {
			v.t.Errorf("what is left of a kind cannot be removed: %v", err)
		}
	})
}
