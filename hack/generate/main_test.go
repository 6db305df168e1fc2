package main

import (
	"os"
	"path/filepath"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
)

// TestTheProtosetIsAllThatAClientNeeds: the service, and what its errors hold.
func TestTheProtosetIsAllThatAClientNeeds(t *testing.T) {
	path := filepath.Join(t.TempDir(), "protoset")
	t.Chdir(filepath.Join("..", ".."))
	if err := run(path); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	set := &descriptorpb.FileDescriptorSet{}
	if err := proto.Unmarshal(data, set); err != nil {
		t.Fatal(err)
	}
	files, err := protodesc.NewFiles(set)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []protoreflect.FullName{"cosi.resource.State", "cosi.plugin.v1alpha1.Plugin", "google.rpc.ErrorInfo", "google.rpc.BadRequest"} {
		if _, err := files.FindDescriptorByName(name); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
