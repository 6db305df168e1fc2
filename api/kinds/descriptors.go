package kinds

import (
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"

	metapb "github.com/cosi-os/cosi/api/cosi/resource/meta"
)

// FromFiles returns the kinds among the messages of files: those that carry the option (cosi.resource.meta.kind).
func FromFiles(files *protoregistry.Files) ([]*Kind, error) {
	var all []*Kind
	var problems []error
	files.RangeFiles(func(file protoreflect.FileDescriptor) bool {
		found, err := fromMessages(file.Messages())
		all, problems = append(all, found...), append(problems, err)
		return true
	})
	return all, errors.Join(problems...)
}

func fromMessages(messages protoreflect.MessageDescriptors) ([]*Kind, error) {
	var all []*Kind
	var problems []error
	for i := range messages.Len() {
		message := messages.Get(i)
		if d, ok := definition(message); ok {
			k, err := New(d, message)
			if err != nil {
				problems = append(problems, fmt.Errorf("message %s: %w", message.FullName(), err))
				continue
			}
			all = append(all, k)
		}
		nested, err := fromMessages(message.Messages())
		all, problems = append(all, nested...), append(problems, err)
	}
	return all, errors.Join(problems...)
}

func definition(message protoreflect.MessageDescriptor) (*metapb.ResourceDefinitionSpec, bool) {
	options, ok := message.Options().(*descriptorpb.MessageOptions)
	if !ok || !proto.HasExtension(options, metapb.E_Kind) {
		return nil, false
	}
	d, ok := proto.GetExtension(options, metapb.E_Kind).(*metapb.ResourceDefinitionSpec)
	return d, ok
}

// FromDescriptorSet returns the kinds of a marshalled google.protobuf.FileDescriptorSet that holds all its files import.
func FromDescriptorSet(data []byte) ([]*Kind, error) {
	files, err := parseDescriptors(data)
	if err != nil {
		return nil, err
	}
	return FromFiles(files)
}

// FromDefinition returns the kind of a definition that was read over the API, with its descriptors inside.
func FromDefinition(d *metapb.ResourceDefinitionSpec) (*Kind, error) {
	files, err := parseDescriptors(d.GetDescriptors())
	if err != nil {
		return nil, fmt.Errorf("%s: %w", d.GetResourceType(), err)
	}
	found, err := files.FindDescriptorByName(protoreflect.FullName(d.GetMessage()))
	if err != nil {
		return nil, fmt.Errorf("%s: descriptors hold no message %q", d.GetResourceType(), d.GetMessage())
	}
	message, ok := found.(protoreflect.MessageDescriptor)
	if !ok {
		return nil, fmt.Errorf("%s: %q is not a message", d.GetResourceType(), d.GetMessage())
	}
	return New(d, message)
}

func parseDescriptors(data []byte) (*protoregistry.Files, error) {
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

// DescriptorSet returns the message's file and all that it imports as a marshalled google.protobuf.FileDescriptorSet, imports first.
// The same descriptors give the same bytes.
func (k *Kind) DescriptorSet() ([]byte, error) {
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

// FullDefinition returns the definition with the descriptors inside: the content of the kind's ResourceDefinitions resource.
func (k *Kind) FullDefinition() (*metapb.ResourceDefinitionSpec, error) {
	descriptors, err := k.DescriptorSet()
	if err != nil {
		return nil, err
	}
	d := proto.Clone(k.Definition).(*metapb.ResourceDefinitionSpec)
	d.Descriptors = descriptors
	return d, nil
}
