package kinds

import (
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"
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
