package descriptors_test

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"

	metapb "github.com/cosi-os/cosi/api/cosi/resource/meta"
	"github.com/cosi-os/cosi/api/kinds"
	"github.com/cosi-os/cosi/api/kinds/builtin"
	"github.com/cosi-os/cosi/api/kinds/descriptors"
)

func TestKindSaysWhatIsMissing(t *testing.T) {
	d, err := descriptors.Definition(builtin.Set().ByType("MountPoints.storage.cosi.dev"))
	if err != nil {
		t.Fatal(err)
	}
	d.Message = "no.Such"
	if _, err := descriptors.Kind(d); err == nil || !strings.Contains(err.Error(), `no message "no.Such"`) {
		t.Errorf("unknown message: %v", err)
	}
	d.Descriptors = []byte("garbage")
	if _, err := descriptors.Kind(d); err == nil || !strings.Contains(err.Error(), "descriptors") {
		t.Errorf("garbage: %v", err)
	}
}

// TestAReaderParsesAFileOnce: definitions of the kinds of one file have the same bytes, those of another have others.
func TestAReaderParsesAFileOnce(t *testing.T) {
	reader := descriptors.Reader{}
	read := func(typ string) *kinds.Kind {
		t.Helper()
		d, err := descriptors.Definition(builtin.Set().ByType(typ))
		if err != nil {
			t.Fatal(err)
		}
		k, err := reader.Kind(d)
		if err != nil || k.Type() != typ {
			t.Fatalf("Kind = %v, %v; want %s", k, err, typ)
		}
		return k
	}
	mounts, statuses, links := read("MountPoints.storage.cosi.dev"), read("MountPointStatuses.storage.cosi.dev"), read("Links.network.cosi.dev")
	if mounts.Message.ParentFile() != statuses.Message.ParentFile() || mounts.Message == statuses.Message || len(reader) != 2 {
		t.Errorf("%d files were parsed for %v, %v and %v; want two", len(reader), mounts, statuses, links)
	}
}

// FuzzKinds: descriptors come over the API.
func FuzzKinds(f *testing.F) {
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
	if all, err := descriptors.Kinds(data); len(all) != 1 || err != nil {
		f.Fatalf("seed: %v, %v", all, err)
	}
	f.Add(data)
	f.Add([]byte{0x0a, 0})
	f.Fuzz(func(t *testing.T, data []byte) {
		all, err := descriptors.Kinds(data)
		if err != nil {
			return
		}
		for _, k := range all {
			_, _ = k.Decode([]byte("a: 1"))
		}
	})
}
