package schema

import (
	"context"
	"errors"
	"fmt"
	"sync"

	metapb "github.com/cosi-os/cosi/api/cosi/resource/meta"
	"github.com/cosi-os/cosi/api/kinds"
	"github.com/cosi-os/cosi/engine/runtime/output"
	"github.com/cosi-os/cosi/engine/runtime/state"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// NamespaceDescriptions are the namespaces of a node, in words.
func NamespaceDescriptions() map[string]string {
	return map[string]string{
		"config":   "What people want the node to be",
		"requests": "What people ask the node to do, once",
		"audit":    "Who wrote what, and how earlier boots ended",
		"status":   "What plugins and the runtime observe",
		"events":   "What happened",
		"logs":     "What processes print",
		"meta":     "Kinds and namespaces",
	}
}

// publisher writes definitions and namespaces into meta when somebody first looks there, each definition alone if it is asked for alone:
// all of them hold 1.8 MB of descriptors, which a boot does not wait for.
type publisher struct {
	output output.Writer

	mu    sync.Mutex        // guards the fields below
	done  map[string]bool   // ids of definitions that are there, or have been
	files map[string][]byte // marshalled FileDescriptorProtos by path: most kinds share most files
	named bool              // the namespaces are there
}

func newPublisher(next state.State) *publisher {
	return &publisher{output: output.New(next), done: map[string]bool{}, files: map[string][]byte{}}
}

// look is publish for who only reads. What the store has no room for is not there until somebody looks again: on a full disk reads go on.
func (s *State) look(ctx context.Context, k state.Kind, id string) error {
	err := s.publish(ctx, k, id)
	if errors.Is(err, state.ErrNoSpace) || errors.Is(err, state.ErrLimit) {
		return nil
	}
	return err
}

// publish makes visible what is said of k, or of one resource of it.
func (s *State) publish(ctx context.Context, k state.Kind, id string) error {
	if k.Namespace != Definitions.Namespace {
		return nil
	}
	ctx = context.WithoutCancel(ctx)
	s.published.mu.Lock()
	defer s.published.mu.Unlock()
	if k == Namespaces {
		return s.published.namespaces(ctx)
	}
	for _, kind := range s.kinds.Load().All() {
		if id == "" || id == kind.ID() {
			if err := s.published.definition(ctx, kind); err != nil {
				return err
			}
		}
	}
	return nil
}

// wrote notes that somebody else has written the definition with the id.
func (p *publisher) wrote(id string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done[id] = true
}

// gone notes that somebody has removed it.
func (p *publisher) gone(id string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.done, id)
}

func (p *publisher) namespaces(ctx context.Context) error {
	if p.named {
		return nil
	}
	for name, description := range NamespaceDescriptions() {
		if err := p.output.Put(ctx, state.Pointer{Kind: Namespaces, ID: name}, &metapb.NamespaceSpec{Description: description}); err != nil {
			return err
		}
	}
	p.named = true
	return nil
}

func (p *publisher) definition(ctx context.Context, kind *kinds.Kind) error {
	if p.done[kind.ID()] {
		return nil
	}
	definition := proto.CloneOf(kind.Definition)
	var err error
	if definition.Descriptors, err = p.descriptors(nil, map[string]bool{}, kind.Message.ParentFile()); err != nil {
		return fmt.Errorf("%s: %w", kind.Type(), err)
	}
	if err := p.output.Put(ctx, state.Pointer{Kind: Definitions, ID: kind.ID()}, definition); err != nil {
		return err
	}
	p.done[kind.ID()] = true
	return nil
}

// descriptors appends file to a marshalled FileDescriptorSet, after what it imports.
func (p *publisher) descriptors(set []byte, in map[string]bool, file protoreflect.FileDescriptor) ([]byte, error) {
	if in[file.Path()] {
		return set, nil
	}
	in[file.Path()] = true
	var err error
	for i := range file.Imports().Len() {
		if set, err = p.descriptors(set, in, file.Imports().Get(i).FileDescriptor); err != nil {
			return nil, err
		}
	}
	data, known := p.files[file.Path()]
	if !known {
		if data, err = (proto.MarshalOptions{Deterministic: true}).Marshal(protodesc.ToFileDescriptorProto(file)); err != nil {
			return nil, err
		}
		p.files[file.Path()] = data
	}
	return protowire.AppendBytes(protowire.AppendTag(set, fieldFile, protowire.BytesType), data), nil
}
