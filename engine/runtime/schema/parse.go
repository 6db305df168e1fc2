package schema

import (
	"fmt"

	"github.com/cosi-os/cosi/api/kinds"
	"github.com/cosi-os/cosi/engine/runtime/state"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/dynamicpb"
)

// parse reads a content and refuses fields that the kind does not have: a client that is newer than the node must not think that the
// node has understood it.
func parse(kind *kinds.Kind, data []byte) (proto.Message, error) {
	message := newMessage(kind.Message)
	if err := proto.Unmarshal(data, message); err != nil {
		return nil, &state.FieldError{Path: "spec", Message: fmt.Sprintf("is no %s: %v", kind.Message.FullName(), err)}
	}
	if err := unknown(message.ProtoReflect(), "spec"); err != nil {
		return nil, err
	}
	return message, nil
}

// newMessage returns the generated message where it is linked in: it is parsed several times as fast as a dynamic one.
func newMessage(descriptor protoreflect.MessageDescriptor) proto.Message {
	if typ, err := protoregistry.GlobalTypes.FindMessageByName(descriptor.FullName()); err == nil && typ.Descriptor() == descriptor {
		return typ.New().Interface()
	}
	return dynamicpb.NewMessage(descriptor)
}

// unknown returns a FieldError for the first field of m, or of a message in it, that has no name.
func unknown(m protoreflect.Message, path string) error {
	if rest := m.GetUnknown(); len(rest) > 0 {
		return &state.FieldError{Path: path, Message: fmt.Sprintf("has fields that %s does not have (%d bytes): is the client newer than the node?", m.Descriptor().FullName(), len(rest))}
	}
	var found error
	m.Range(func(field protoreflect.FieldDescriptor, value protoreflect.Value) bool {
		found = unknownIn(field, value, path+"."+string(field.Name()))
		return found == nil
	})
	return found
}

func unknownIn(field protoreflect.FieldDescriptor, value protoreflect.Value, path string) error {
	switch {
	case field.IsMap():
		return unknownInMap(field, value.Map(), path)
	case field.Message() == nil:
		return nil
	case field.IsList():
		for i := range value.List().Len() {
			if err := unknown(value.List().Get(i).Message(), fmt.Sprintf("%s[%d]", path, i)); err != nil {
				return err
			}
		}
		return nil
	}
	return unknown(value.Message(), path)
}

func unknownInMap(field protoreflect.FieldDescriptor, values protoreflect.Map, path string) error {
	if field.MapValue().Message() == nil {
		return nil
	}
	var found error
	values.Range(func(key protoreflect.MapKey, value protoreflect.Value) bool {
		found = unknown(value.Message(), fmt.Sprintf("%s[%v]", path, key))
		return found == nil
	})
	return found
}
