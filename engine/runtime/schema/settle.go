package schema

import (
	"context"
	"fmt"

	metapb "github.com/cosi-os/cosi/api/cosi/resource/meta"
	"github.com/cosi-os/cosi/api/kinds"
	"github.com/cosi-os/cosi/api/kinds/descriptors"
	"github.com/cosi-os/cosi/engine/runtime/state"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// Settle does what a start does not wait for. It compiles the rules of all kinds, so that no write has to: 17 ms for those of this repository.
// And it says, a sentence a kind, what of people's resources the image that is running now does not understand, because another one was there
// when they were written. They are served as they are; who writes them again keeps to the kind as it is now. Rules are not asked: a content that was
// let in stays in. stored are the kinds that the durable store holds something of, or has: those that the image does not have are there again with one
// that does, and until then an admin may read and remove them.
func (s *State) Settle(ctx context.Context, stored []state.Kind) (misfits []string, err error) {
	for _, k := range s.kinds.Load().All() {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if err := s.rules.compile(k.Message); err != nil {
			misfits = append(misfits, fmt.Sprintf("%s: its rules do not compile: %v", k.Type(), err))
		}
		why, err := s.misfit(ctx, k)
		if err != nil {
			return nil, err
		}
		if why != "" {
			misfits = append(misfits, why)
		}
	}
	s.earlier = nil
	for _, k := range stored {
		why, err := s.missing(ctx, k)
		if err != nil {
			return nil, err
		}
		if why != "" {
			misfits = append(misfits, why)
		}
	}
	return misfits, nil
}

// missing says how many resources of a kind there are, "" if there are none, or if this image has the kind.
func (s *State) missing(ctx context.Context, k state.Kind) (string, error) {
	if known := s.kinds.Load().ByType(k.Type); k.Namespace != namespaceConfig || known != nil && known.Namespace() == k.Namespace || s.unusableOf(k.Type) != nil {
		return "", nil
	}
	all, err := s.next.List(ctx, k, state.Query{})
	if err != nil || len(all) == 0 {
		return "", err
	}
	return fmt.Sprintf("%s: this image does not have the kind, and %d resources are of before", k.Type, len(all)), nil
}

// misfit says what is wrong with the resources of a kind, "" if nothing is.
func (s *State) misfit(ctx context.Context, k *kinds.Kind) (string, error) {
	if k.Namespace() != namespaceConfig {
		return "", nil
	}
	all, err := s.next.List(ctx, state.Kind{Namespace: k.Namespace(), Type: k.Type()}, state.Query{})
	if err != nil || len(all) == 0 {
		return "", err
	}
	if why := s.changed(k); why != "" {
		return fmt.Sprintf("%s: %s, and %d resources are of before", k.Type(), why, len(all)), nil
	}
	bad, first := 0, ""
	for _, r := range all {
		if _, err := parse(k, r.Message().GetSpec().GetProtoSpec()); err != nil {
			if bad++; first == "" {
				first = fmt.Sprintf("%s: %v", r.ID(), err)
			}
		}
	}
	if bad == 0 {
		return "", nil
	}
	text := fmt.Sprintf("%s: %d of %d resources do not fit", k.Type(), bad, len(all))
	if s.Definition(k.Type()).GetSensitivity() == metapb.ResourceDefinitionSpec_SENSITIVE {
		return text, nil // a path may quote the key of a map
	}
	return text + ": " + first, nil
}

// changed says why what was written by the definition that the image before has published cannot be read by that of this image, "" if it can
// or if there is none: they are published when somebody looks.
func (s *State) changed(k *kinds.Kind) string {
	definition := &metapb.ResourceDefinitionSpec{}
	if proto.Unmarshal(s.earlier[k.ID()].GetSpec().GetProtoSpec(), definition) != nil {
		return ""
	}
	old, err := descriptors.Kind(definition)
	if err != nil {
		return ""
	}
	return incompatible(old.Message, k.Message, map[protoreflect.FullName]bool{})
}

// namespaceConfig is where what people want lives.
const namespaceConfig = "config"
