// Package descriptors makes kinds of protobuf descriptors and descriptors of kinds. The runtime, the tools and the image builder call it;
// plugins, which are given their kinds, do without: what it is built on costs each process 0.2 MiB.
package descriptors

import (
	"fmt"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"

	metapb "github.com/cosi-os/cosi/api/cosi/resource/meta"
	"github.com/cosi-os/cosi/api/kinds"
)

// Kinds returns those of a marshalled google.protobuf.FileDescriptorSet that holds all its files import.
func Kinds(data []byte) ([]*kinds.Kind, error) {
	files, err := parse(data)
	if err != nil {
		return nil, err
	}
	return kinds.FromFiles(files)
}

// Kind returns that of a definition that was read over the API, with its descriptors inside.
func Kind(d *metapb.ResourceDefinitionSpec) (*kinds.Kind, error) { return Reader{}.Kind(d) }

// Reader makes kinds of many definitions: by the bytes of descriptors, what was parsed of them. Kinds of one file have the same bytes.
type Reader map[string]*protoregistry.Files

// Kind returns that of a definition that was read over the API, with its descriptors inside.
func (r Reader) Kind(d *metapb.ResourceDefinitionSpec) (*kinds.Kind, error) {
	files := r[string(d.GetDescriptors())]
	if files == nil {
		var err error
		if files, err = parse(d.GetDescriptors()); err != nil {
			return nil, fmt.Errorf("%s: %w", d.GetResourceType(), err)
		}
		r[string(d.GetDescriptors())] = files
	}
	found, err := files.FindDescriptorByName(protoreflect.FullName(d.GetMessage()))
	if err != nil {
		return nil, fmt.Errorf("%s: descriptors hold no message %q", d.GetResourceType(), d.GetMessage())
	}
	message, ok := found.(protoreflect.MessageDescriptor)
	if !ok {
		return nil, fmt.Errorf("%s: %q is not a message", d.GetResourceType(), d.GetMessage())
	}
	return kinds.New(d, message)
}

func parse(data []byte) (*protoregistry.Files, error) {
	set := &descriptorpb.FileDescriptorSet{}
	if err := proto.Unmarshal(data, set); err != nil {
		return nil, fmt.Errorf("descriptors: %w", err)
	}
	files, err := protodesc.NewFiles(set)
	if err != nil {
		return nil, fmt.Errorf("descriptors: %w", err)
	}
	return files, nil
}

// Of returns the file of a kind's message and all that it imports as a marshalled google.protobuf.FileDescriptorSet, imports first.
// The same descriptors give the same bytes.
func Of(k *kinds.Kind) ([]byte, error) {
	set := &descriptorpb.FileDescriptorSet{}
	if err := appendFile(set, map[string]bool{}, k.Message.ParentFile()); err != nil {
		return nil, fmt.Errorf("%s: %w", k.Type(), err)
	}
	return proto.MarshalOptions{Deterministic: true}.Marshal(set)
}

func appendFile(set *descriptorpb.FileDescriptorSet, done map[string]bool, file protoreflect.FileDescriptor) error {
	if done[file.Path()] {
		return nil
	}
	done[file.Path()] = true
	if file.IsPlaceholder() {
		return fmt.Errorf("%s: imported and missing", file.Path())
	}
	for i := range file.Imports().Len() {
		if err := appendFile(set, done, file.Imports().Get(i).FileDescriptor); err != nil {
			return err
		}
	}
	set.File = append(set.File, protodesc.ToFileDescriptorProto(file))
	return nil
}

// Definition returns a kind's with the descriptors inside: the content of its ResourceDefinitions resource.
func Definition(k *kinds.Kind) (*metapb.ResourceDefinitionSpec, error) {
	descriptors, err := Of(k)
	if err != nil {
		return nil, err
	}
	d := proto.Clone(k.Definition).(*metapb.ResourceDefinitionSpec)
	d.Descriptors = descriptors
	return d, nil
}
