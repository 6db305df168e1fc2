package schema

import (
	"errors"
	"fmt"
	"sync"

	"buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate"
	"buf.build/go/protovalidate"
	apirules "github.com/cosi-os/cosi/api/rules"
	"github.com/cosi-os/cosi/engine/runtime/state"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// rules evaluates the buf.validate annotations of messages. The evaluator is made with the first message that has any, because its
// construction costs more than all else that happens before the runtime listens; a message's own rules are compiled when it is defined, those
// of the image and of definitions that were kept by Settle, or by a write that comes before it.
type rules struct {
	make      sync.Once
	validator protovalidate.Validator
	failed    error

	annotated sync.Map // protoreflect.MessageDescriptor to bool
}

// check returns FieldErrors with every rule that m breaks. Of a secret they quote nothing.
func (r *rules) check(m proto.Message, secret bool) error {
	if !r.has(m.ProtoReflect().Descriptor()) {
		return nil
	}
	r.make.Do(func() { r.validator, r.failed = protovalidate.New() })
	if r.failed != nil {
		return fmt.Errorf("rules: %w", r.failed)
	}
	err := r.validator.Validate(m)
	var broken *protovalidate.ValidationError
	if !errors.As(err, &broken) {
		return err
	}
	var all state.FieldErrors
	for _, r := range apirules.Of(broken, secret) {
		all = append(all, &state.FieldError{Path: r.Field, Message: r.Message})
	}
	return all
}

// compile compiles the rules of a message, so that the first write need not, and fails when one of them does not compile.
func (r *rules) compile(d protoreflect.MessageDescriptor) error {
	err := r.check(newMessage(d), false)
	var broken state.FieldErrors
	if errors.As(err, &broken) {
		return nil // an empty message may break rules
	}
	return err
}

// has reports whether a message, or one inside it, has rules.
func (r *rules) has(message protoreflect.MessageDescriptor) bool {
	if known, ok := r.annotated.Load(message); ok {
		return known.(bool)
	}
	found := annotated(message, map[protoreflect.FullName]bool{})
	r.annotated.Store(message, found)
	return found
}

func annotated(message protoreflect.MessageDescriptor, seen map[protoreflect.FullName]bool) bool {
	if seen[message.FullName()] {
		return false
	}
	seen[message.FullName()] = true
	if proto.HasExtension(message.Options(), validate.E_Message) {
		return true
	}
	for i := range message.Oneofs().Len() {
		if proto.HasExtension(message.Oneofs().Get(i).Options(), validate.E_Oneof) {
			return true
		}
	}
	for i := range message.Fields().Len() {
		field := message.Fields().Get(i)
		if proto.HasExtension(field.Options(), validate.E_Field) {
			return true
		}
		if inner := field.Message(); inner != nil && annotated(inner, seen) {
			return true
		}
	}
	return false
}
