package kinds_test

import (
	"errors"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"

	metapb "github.com/cosi-os/cosi/api/cosi/resource/meta"
	"github.com/cosi-os/cosi/api/kinds"
	"github.com/cosi-os/cosi/api/kinds/builtin"
)

func TestLookupFindsAKindByEveryName(t *testing.T) {
	set := builtin.Set()
	for _, name := range []string{
		"MountPoints.storage.cosi.dev", "mountpoints.storage.cosi.dev", "MountPoints", "mountpoint", "MountPoint", "mount", "MOUNTS",
	} {
		k, err := set.Lookup(name)
		if err != nil || k.Type() != "MountPoints.storage.cosi.dev" {
			t.Errorf("Lookup(%q) = %v, %v", name, k, err)
		}
	}
	for name, want := range map[string]string{
		"addresses": "Addresses.network.cosi.dev", "address": "Addresses.network.cosi.dev", "machinestatus": "MachineStatuses.machine.cosi.dev",
		"certificate": "Certificates.machine.cosi.dev", "log": "Logs.service.cosi.dev", "namespaces": "Namespaces.meta.cosi.dev",
	} {
		if k, err := set.Lookup(name); err != nil || k.Type() != want {
			t.Errorf("Lookup(%q) = %v, %v; want %s", name, k, err, want)
		}
	}
}

func TestLookupNamesTheNearest(t *testing.T) {
	_, err := builtin.Set().Lookup("MuontPoint")
	if !errors.Is(err, kinds.ErrUnknown) || !strings.Contains(err.Error(), "did you mean mountpoints?") {
		t.Errorf("Lookup(MuontPoint): %v", err)
	}
	if _, err := builtin.Set().Lookup("zebra"); err == nil || strings.Contains(err.Error(), "did you mean") {
		t.Errorf("Lookup(zebra): %v", err)
	}
}

func TestTwoKindsMayNotClaimOneName(t *testing.T) {
	mount := kind(t, "mount")
	other, err := kinds.New(&metapb.ResourceDefinitionSpec{ResourceType: "Mounts.example.com", DefaultNamespace: "config"}, mount.Message)
	if err != nil {
		t.Fatal(err)
	}
	set := builtin.Set()
	before := len(set.All())
	if err := set.Add(other); err == nil || !strings.Contains(err.Error(), `"mount`) {
		t.Errorf("Add: %v", err)
	}
	if len(set.All()) != before || set.ByType("Mounts.example.com") != nil {
		t.Error("a refused kind was added in part")
	}
}

func TestNewRefusesWhatIsNoKind(t *testing.T) {
	message := kind(t, "mount").Message
	for _, d := range []*metapb.ResourceDefinitionSpec{
		{ResourceType: "mounts", DefaultNamespace: "config"},
		{ResourceType: "Mounts.example.com"},
		{ResourceType: "Mounts.example.com", DefaultNamespace: "config", Message: "other.Message"},
		{ResourceType: "Mounts.-.com", DefaultNamespace: "config"},
	} {
		if k, err := kinds.New(d, message); err == nil {
			t.Errorf("New(%v) = %v", d, k)
		}
	}
}

func TestFromDefinitionSaysWhatIsMissing(t *testing.T) {
	d, err := kind(t, "mount").FullDefinition()
	if err != nil {
		t.Fatal(err)
	}
	d.Message = "no.Such"
	if _, err := kinds.FromDefinition(d); err == nil || !strings.Contains(err.Error(), `no message "no.Such"`) {
		t.Errorf("unknown message: %v", err)
	}
	d.Descriptors = []byte("garbage")
	if _, err := kinds.FromDefinition(d); err == nil || !strings.Contains(err.Error(), "descriptors") {
		t.Errorf("garbage: %v", err)
	}
}

// FuzzFromDescriptorSet: descriptors come over the API.
func FuzzFromDescriptorSet(f *testing.F) {
	// A set of one small file: with one of ours, 72 kB, the fuzzer gets nowhere.
	options := &descriptorpb.MessageOptions{}
	proto.SetExtension(options, metapb.E_Kind, &metapb.ResourceDefinitionSpec{ResourceType: "As.b", DefaultNamespace: "config"})
	data, err := proto.Marshal(&descriptorpb.FileDescriptorSet{File: []*descriptorpb.FileDescriptorProto{{
		Name: proto.String("a.proto"), Syntax: proto.String("proto3"),
		MessageType: []*descriptorpb.DescriptorProto{{Name: proto.String("A"), Options: options, Field: []*descriptorpb.FieldDescriptorProto{{
			Name: proto.String("a"), Number: proto.Int32(1),
			Type: descriptorpb.FieldDescriptorProto_TYPE_INT32.Enum(), Label: descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL.Enum(),
		}}}},
	}}})
	if err != nil {
		f.Fatal(err)
	}
	if all, err := kinds.FromDescriptorSet(data); len(all) != 1 || err != nil {
		f.Fatalf("seed: %v, %v", all, err)
	}
	f.Add(data)
	f.Add([]byte{0x0a, 0})
	f.Fuzz(func(t *testing.T, data []byte) {
		all, err := kinds.FromDescriptorSet(data)
		if err != nil {
			return
		}
		for _, k := range all {
			_, _ = k.Decode([]byte("a: 1"))
		}
	})
}
