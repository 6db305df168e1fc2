package schema

import (
	"context"
	"strings"
	"testing"

	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	"github.com/cosi-os/cosi/api/kinds/builtin"
	"github.com/cosi-os/cosi/api/kinds/descriptors"
	"github.com/cosi-os/cosi/engine/runtime/output"
	"github.com/cosi-os/cosi/engine/runtime/state"
	"github.com/cosi-os/cosi/engine/runtime/state/memory"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/types/descriptorpb"
)

const mounts = "MountPoints.storage.cosi.dev"

// keep puts a resource into a store as an earlier runtime left it there.
func keep(t *testing.T, s state.State, namespace, typ, id, owner string, content []byte) {
	t.Helper()
	r := &resourcepb.Resource{
		Metadata: &resourcepb.Metadata{Namespace: namespace, Type: typ, Id: id, Owner: owner, Phase: state.PhaseRunning},
		Spec:     &resourcepb.Spec{ProtoSpec: content},
	}
	if _, err := s.Create(context.Background(), r, state.WriteOptions{Owner: owner}); err != nil {
		t.Fatal(err)
	}
}

// TestRecoveryEvaluatesNoRule: neither for resources that break them nor for definitions that bring them. Rules are Settle's.
func TestRecoveryEvaluatesNoRule(t *testing.T) {
	store := memory.New(memory.Options{})
	keep(t, store, "config", mounts, "bad", "", nil) // source is missing
	d, err := descriptors.Definition(builtin.Set().ByType(mounts))
	if err != nil {
		t.Fatal(err)
	}
	d.ResourceType, d.DisplayType, d.Aliases = "Bindings.example.org", "Binding", nil
	content, err := proto.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	keep(t, store, "meta", Definitions.Type, "bindings.example.org", "", content)
	keep(t, store, "config", "Bindings.example.org", "bad", "", nil)
	s := New(store, builtin.Set(), "")
	if err := s.Recover(t.Context()); err != nil {
		t.Fatal(err)
	}
	compiled := func() (all []string) {
		for _, k := range s.kinds.Load().All() {
			if known, ok := s.rules.annotated.Load(k.Message); ok && known.(bool) {
				all = append(all, k.Type())
			}
		}
		return all
	}
	if s.rules.validator != nil || len(compiled()) > 0 {
		t.Errorf("after recovery there is an evaluator, and the rules of %v are compiled", compiled())
	}
	misfits, err := s.Settle(t.Context(), nil)
	if err != nil || len(misfits) > 0 {
		t.Errorf("Settle: %v, %v; want nothing: a content that was let in stays in", misfits, err)
	}
	if all := strings.Join(compiled(), " "); !strings.Contains(all, mounts) || !strings.Contains(all, "Bindings.example.org") {
		t.Errorf("Settle has compiled the rules of %s; want those of the image and of people", all)
	}
}

// published is the definition of MountPoints as an image published it that had another field number 1.
func published(t *testing.T, name string) []byte {
	t.Helper()
	k := builtin.Set().ByType(mounts)
	set := &descriptorpb.FileDescriptorSet{}
	data, err := descriptors.Of(k)
	if err != nil || proto.Unmarshal(data, set) != nil {
		t.Fatal(err)
	}
	for _, file := range set.File {
		for _, m := range file.MessageType {
			if file.GetPackage()+"."+m.GetName() == string(k.Message.FullName()) {
				m.Field[0].Name, m.Field[0].JsonName = &name, &name
			}
		}
	}
	if _, err := protodesc.NewFiles(set); err != nil {
		t.Fatal(err)
	}
	d := proto.CloneOf(k.Definition)
	if d.Descriptors, err = proto.Marshal(set); err != nil {
		t.Fatal(err)
	}
	content, err := proto.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

func TestWhatTheImageDoesNotUnderstandIsSaid(t *testing.T) {
	good, _ := builtin.Set().ByType(mounts).Decode([]byte("{source: tmpfs, target: /var/a, fstype: tmpfs}"))
	for name, c := range map[string]struct {
		published []byte // by the image before
		typ       string // of what is there
		contents  [][]byte
		want      string // nothing if empty
	}{
		"nothing there":       {published(t, "device"), mounts, nil, ""},
		"all fit":             {published(t, "source"), mounts, [][]byte{good, good}, ""},
		"a field is gone":     {nil, mounts, [][]byte{good, append(good[:len(good):len(good)], 0xf8, 0x3f, 1)}, mounts + ": 1 of 2 resources do not fit: b: spec: has fields that"},
		"not readable":        {nil, mounts, [][]byte{{0xff}, {0xff}}, mounts + ": 2 of 2 resources do not fit: a: spec: is no"},
		"another meaning":     {published(t, "device"), mounts, [][]byte{good}, mounts + ": the field MountPoint.device is renamed to source, and 1 resources are of before"},
		"another that is bad": {[]byte{0xff}, mounts, [][]byte{good}, ""},
		"a kind is gone":      {nil, "Olds.example.org", [][]byte{good, good}, "Olds.example.org: this image does not have the kind, and 2 resources are of before"},
	} {
		store := memory.New(memory.Options{})
		if c.published != nil {
			keep(t, store, "meta", Definitions.Type, strings.ToLower(mounts), output.Owner, c.published)
		}
		for i, content := range c.contents {
			keep(t, store, "config", c.typ, string(rune('a'+i)), "", content)
		}
		s := New(store, builtin.Set(), "")
		if err := s.Recover(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, err := s.List(t.Context(), Definitions, state.Query{}); err != nil { // which publishes those of this image
			t.Fatal(err)
		}
		misfits, err := s.Settle(t.Context(), store.Kinds())
		if all := strings.Join(misfits, "\n"); err != nil || c.want == "" && all != "" || !strings.HasPrefix(all, c.want) || len(misfits) > 1 {
			t.Errorf("%s: %q, %v; want %q", name, all, err, c.want)
		}
	}
}
