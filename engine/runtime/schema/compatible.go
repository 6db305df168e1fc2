package schema

import (
	"context"
	"fmt"

	"github.com/cosi-os/cosi/api/kinds"
	"github.com/cosi-os/cosi/engine/runtime/state"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// replaceable fails with FieldErrors when resources of a kind are there that its new definition does not fit: the namespace is another,
// what is stored would be read as something else, or one of them breaks a rule that is new.
func (s *State) replaceable(ctx context.Context, old, fresh *kinds.Kind) error {
	all, err := s.next.List(ctx, state.Kind{Namespace: old.Namespace(), Type: old.Type()}, state.Query{})
	if err != nil || len(all) == 0 {
		return err
	}
	refuse := func(path, why string) error {
		return &state.FieldError{Path: path, Message: fmt.Sprintf("%s, and there are %d resources of %s: remove them first, or keep it and add something new", why, len(all), old.Type())}
	}
	if old.Namespace() != fresh.Namespace() {
		return refuse("spec.default_namespace", fmt.Sprintf("changes from %q to %q", old.Namespace(), fresh.Namespace()))
	}
	if old.Sensitive() && !fresh.Sensitive() {
		return refuse("spec.sensitivity", "is taken away")
	}
	if why := incompatible(old.Message, fresh.Message, map[protoreflect.FullName]bool{}); why != "" {
		return refuse("spec.descriptors", why)
	}
	for _, r := range all {
		message, err := parse(fresh, r.Message().GetSpec().GetProtoSpec())
		if err == nil {
			err = s.rules.check(message, fresh.Sensitive())
		}
		if err != nil {
			return refuse("spec.descriptors", fmt.Sprintf("%q does not fit: %v", r.ID(), err))
		}
	}
	return nil
}

// incompatible says why what was written as old cannot be read as fresh, "" if it can. New fields and values are no reason, nor is a name that was
// changed and is still said, as json_name: then documents with the name before can be read, too.
func incompatible(old, fresh protoreflect.MessageDescriptor, seen map[protoreflect.FullName]bool) string {
	if seen[old.FullName()] {
		return ""
	}
	seen[old.FullName()] = true
	for i := range old.Fields().Len() {
		was := old.Fields().Get(i)
		is := fresh.Fields().ByNumber(was.Number())
		name := fmt.Sprintf("the field %s.%s", old.Name(), was.Name())
		switch {
		case is == nil && fresh.Fields().ByName(was.Name()) != nil:
			return fmt.Sprintf("%s changes its number from %d to %d", name, was.Number(), fresh.Fields().ByName(was.Name()).Number())
		case is == nil:
			return name + " is gone"
		case is.Name() != was.Name() && is.JSONName() != string(was.Name()) && was.JSONName() != string(is.Name()):
			return fmt.Sprintf("%s is renamed to %s", name, is.Name())
		case is.Kind() != was.Kind() || is.IsMap() != was.IsMap():
			return fmt.Sprintf("%s changes from %v to %v", name, was.Kind(), is.Kind())
		case is.Cardinality() != was.Cardinality() || is.HasPresence() != was.HasPresence():
			return fmt.Sprintf("%s changes from %s to %s", name, cardinality(was), cardinality(is))
		case oneofName(is) != oneofName(was):
			return fmt.Sprintf("%s moves from %s to %s", name, oneofName(was), oneofName(is))
		}
		if was.Enum() != nil {
			if why := incompatibleEnum(was.Enum(), is.Enum()); why != "" {
				return why
			}
		}
		if was.Message() != nil {
			if why := incompatible(was.Message(), is.Message(), seen); why != "" {
				return why
			}
		}
	}
	return ""
}

func cardinality(f protoreflect.FieldDescriptor) string {
	if f.HasPresence() && f.Cardinality() == protoreflect.Optional {
		return "optional with presence"
	}
	return f.Cardinality().String()
}

func oneofName(f protoreflect.FieldDescriptor) string {
	if o := f.ContainingOneof(); o != nil && !o.IsSynthetic() {
		return "the oneof " + string(o.Name())
	}
	return "no oneof"
}

func incompatibleEnum(old, fresh protoreflect.EnumDescriptor) string {
	for i := range old.Values().Len() {
		was := old.Values().Get(i)
		if is := fresh.Values().ByNumber(was.Number()); is == nil || is.Name() != was.Name() {
			return fmt.Sprintf("the value %s = %d of the enum %s is gone or renamed", was.Name(), was.Number(), old.Name())
		}
	}
	return ""
}
