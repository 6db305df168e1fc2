package schema

import (
	"context"
	"slices"
	"sync"

	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	"github.com/cosi-os/cosi/api/kinds"
	"github.com/cosi-os/cosi/engine/runtime/state"
	"github.com/cosi-os/cosi/engine/runtime/state/encoded"
	"google.golang.org/protobuf/proto"
)

// namespaceAudit is where records live. It and namespaceConfig outlive the image.
const namespaceAudit = "audit"

// wording says how readers get the YAML form of resources of a kind. Without a kind they get what is there.
type wording struct {
	kind *kinds.Kind
	// foreign says that resources are there whose YAML another image has written, which had other names for their fields.
	foreign bool
}

// wording returns that of a type. Definitions stay as they are, because nobody reads descriptors in YAML.
func (s *State) wording(ctx context.Context, typ string) wording {
	if typ == Definitions.Type {
		return wording{}
	}
	k := s.kinds.Load().ByType(typ)
	return wording{k, k != nil && s.foreign(ctx, k)}
}

// foreign looks at all resources of a kind that outlives the image when somebody reads the first, and at none from then on: what is written now is
// in the words of this image.
func (s *State) foreign(ctx context.Context, k *kinds.Kind) bool {
	if k.Namespace() != namespaceConfig && k.Namespace() != namespaceAudit {
		return false
	}
	look, known := s.looked.Load(k)
	if !known {
		look, _ = s.looked.LoadOrStore(k, sync.OnceValue(func() bool {
			all, err := s.next.List(context.WithoutCancel(ctx), state.Kind{Namespace: k.Namespace(), Type: k.Type()}, state.Query{})
			return err != nil || slices.ContainsFunc(all, func(r encoded.Resource) bool {
				text := r.Message().GetSpec().GetYamlSpec()
				is, err := yamlOf(k, r.Message().GetSpec().GetProtoSpec())
				return err == nil && text != "" && text != is
			})
		}))
	}
	return look.(func() bool)()
}

// complete returns r with a YAML form that is in the words of the kind. The writer may have saved the cost of one: log lines come by the thousand,
// and few are read.
func (w wording) complete(r *resourcepb.Resource) *resourcepb.Resource {
	spec := r.GetSpec()
	if w.kind == nil || len(spec.GetProtoSpec()) == 0 || spec.GetYamlSpec() != "" && !w.foreign {
		return r
	}
	text, err := yamlOf(w.kind, spec.GetProtoSpec())
	if err != nil || text == spec.GetYamlSpec() {
		return r
	}
	return &resourcepb.Resource{Metadata: r.GetMetadata(), Spec: &resourcepb.Spec{ProtoSpec: spec.GetProtoSpec(), YamlSpec: text}}
}

// yamlOf returns the YAML form of a content. Fields that the kind does not have are left out.
func yamlOf(k *kinds.Kind, content []byte) (string, error) {
	message := newMessage(k.Message)
	if err := proto.Unmarshal(content, message); err != nil {
		return "", err
	}
	return kinds.EncodeMessage(message.ProtoReflect())
}

// worded is a watch of a kind whose resources, or some of them, are in the words of another image.
type worded struct {
	state.Watch
	wording wording
}

// Next returns events with what the kind makes of the resources in them. An event is shared by all its watchers: those that differ are copies.
func (w worded) Next(ctx context.Context) ([]*state.Event, error) {
	events, err := w.Watch.Next(ctx)
	all := make([]*state.Event, len(events))
	for i, e := range events {
		resource, old := w.wording.complete(e.GetResource()), w.wording.complete(e.GetOld())
		if all[i] = e; resource != e.GetResource() || old != e.GetOld() {
			all[i] = &state.Event{Resource: resource, EventType: e.GetEventType(), Old: old, Error: e.Error, Bookmark: e.GetBookmark()}
		}
	}
	return all, err
}
