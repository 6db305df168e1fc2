package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	"github.com/cosi-os/cosi/api/kinds"
	"github.com/cosi-os/cosi/engine/runtime/state"
)

// answered fails while an input has no status of its version, as far as the plugin is the one to write it.
func (h *host) answered(ctx context.Context, inputs []*resourcepb.Resource) error {
	for _, input := range inputs {
		observed := h.kinds.ByType(input.GetMetadata().GetType()).Definition.GetObservedType()
		if !h.declaration.Writes(observed) {
			continue
		}
		now, err := h.store.Get(ctx, state.PointerTo(input))
		if err != nil {
			return err
		}
		k := h.kinds.ByType(observed)
		r, err := h.store.Get(ctx, state.Pointer{Kind: state.Kind{Namespace: k.Namespace(), Type: k.Type()}, ID: input.GetMetadata().GetId()})
		if err != nil {
			return fmt.Errorf("%s has no status", state.PointerTo(input))
		}
		version, err := observedVersion(k, r)
		if err != nil {
			return err
		}
		if version != now.GetMetadata().GetVersion() {
			return fmt.Errorf("the status of %s is of version %q, not %s", state.PointerTo(input), version, now.GetMetadata().GetVersion())
		}
	}
	return nil
}

func observedVersion(k *kinds.Kind, r *resourcepb.Resource) (string, error) {
	m, err := k.Unmarshal(r.GetSpec().GetProtoSpec())
	if err != nil {
		return "", err
	}
	field := versionField(m)
	if field == nil {
		return "", fmt.Errorf("%s has no field observed_version", k.Type())
	}
	return m.Get(field).String(), nil
}

func versionField(m protoreflect.Message) protoreflect.FieldDescriptor {
	return m.Descriptor().Fields().ByName("observed_version")
}

// outputs returns what the plugin has written, by name: with versions, or the contents without the versions that they answer to and without
// times, which a plugin that was started again may take anew. Events then are left out: they tell of what happened meanwhile.
func (h *host) outputs(ctx context.Context, versions bool) (map[string]string, error) {
	all := map[string]string{}
	for _, typ := range h.declaration.Outputs {
		k := h.kinds.ByType(typ)
		if !versions && k.Namespace() == "events" {
			continue
		}
		list, err := h.store.List(ctx, state.Kind{Namespace: k.Namespace(), Type: typ}, state.Query{})
		if err != nil {
			return nil, err
		}
		for _, listed := range list {
			r := listed.Message()
			m, err := k.Unmarshal(r.GetSpec().GetProtoSpec())
			if err != nil {
				return nil, err
			}
			text := "version " + r.GetMetadata().GetVersion()
			if !versions {
				if field := versionField(m); field != nil {
					m.Clear(field)
				}
				clearTimes(m)
				if text, err = kinds.EncodeMessage(m); err != nil {
					return nil, err
				}
			}
			all[k.Singular()+"/"+r.GetMetadata().GetId()] = text
		}
	}
	return all, nil
}

// clearTimes removes the times in m and in the messages that it holds.
func clearTimes(m protoreflect.Message) {
	m.Range(func(field protoreflect.FieldDescriptor, value protoreflect.Value) bool {
		switch {
		case field.Message() == nil || field.IsMap():
		case field.Message().FullName() == "google.protobuf.Timestamp":
			m.Clear(field)
		case field.IsList():
			for i := range value.List().Len() {
				clearTimes(value.List().Get(i).Message())
			}
		default:
			clearTimes(value.Message())
		}
		return true
	})
}

// same fails when the outputs are others than before.
func (h *host) same(ctx context.Context, before map[string]string, versions bool) error {
	now, err := h.outputs(ctx, versions)
	if err != nil {
		return err
	}
	var wrong []string
	for name, was := range before {
		switch is, there := now[name]; {
		case !there:
			wrong = append(wrong, name+" is gone")
		case is != was:
			wrong = append(wrong, fmt.Sprintf("%s was %s and is %s", name, strings.TrimSpace(was), strings.TrimSpace(is)))
		}
	}
	for name := range now {
		if _, there := before[name]; !there {
			wrong = append(wrong, name+" is new")
		}
	}
	slices.Sort(wrong)
	if len(wrong) > 0 {
		return errors.New(strings.Join(wrong, "\n"))
	}
	return nil
}

// gone destroys an input that nobody holds any more, and fails while its status is there.
func (h *host) gone(ctx context.Context, input *resourcepb.Resource) error {
	err := h.top.Destroy(ctx, state.PointerTo(input), state.WriteOptions{})
	if err != nil && !errors.Is(err, state.ErrNotFound) {
		return err
	}
	observed := h.kinds.ByType(input.GetMetadata().GetType()).Definition.GetObservedType()
	if k := h.kinds.ByType(observed); k != nil && h.declaration.Writes(observed) {
		p := state.Pointer{Kind: state.Kind{Namespace: k.Namespace(), Type: observed}, ID: input.GetMetadata().GetId()}
		if _, err := h.store.Get(ctx, p); err == nil {
			return fmt.Errorf("%s is still there", p)
		}
	}
	return nil
}

// remove destroys inputs that the plugin does not let go of, as an admin may.
func (h *host) remove(ctx context.Context, inputs []*resourcepb.Resource) {
	for _, input := range inputs {
		if held, err := h.store.Get(ctx, state.PointerTo(input)); err == nil {
			free := proto.CloneOf(held)
			free.Metadata.Finalizers = nil
			_, _ = h.store.Update(ctx, free, state.WriteOptions{}) // what stays is in no other step's way
			_ = h.store.Destroy(ctx, state.PointerTo(input), state.WriteOptions{})
		}
	}
}
