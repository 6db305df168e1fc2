// Package kinds knows what a resource of a kind looks like: its names, its namespace, its message, and how its content is read
// from YAML and written as YAML.
//
// The runtime, the client and the image builder use it; plugins use their generated messages instead. A kind is described by
// protobuf descriptors and nothing else, so a kind that somebody defines over the API is treated like one of this repository.
// Rules (protovalidate) are not evaluated here.
package kinds

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	metapb "github.com/cosi-os/cosi/api/cosi/resource/meta"
)

// ErrUnknown says that no kind has the name that was looked up.
var ErrUnknown = errors.New("unknown kind")

// Kind is one kind of resource. It does not change once it is made.
type Kind struct {
	// Definition has all_aliases filled in and no descriptors: FullDefinition adds them.
	Definition *metapb.ResourceDefinitionSpec
	// Message is the content.
	Message protoreflect.MessageDescriptor
}

// New returns a kind. The definition names it and says where it lives; it is copied.
func New(d *metapb.ResourceDefinitionSpec, message protoreflect.MessageDescriptor) (*Kind, error) {
	d = proto.Clone(d).(*metapb.ResourceDefinitionSpec)
	switch typ := d.GetResourceType(); {
	case !typePattern.MatchString(typ):
		return nil, fmt.Errorf("resource_type: %q is not a type name (MountPoints.storage.cosi.dev)", typ)
	case d.GetDefaultNamespace() == "":
		return nil, fmt.Errorf("%s: default_namespace is empty", typ)
	case d.GetMessage() != "" && d.GetMessage() != string(message.FullName()):
		return nil, fmt.Errorf("%s: message is %q, not %q", typ, d.GetMessage(), message.FullName())
	}
	d.Descriptors = nil
	d.Message = string(message.FullName())
	d.AllAliases = Names(d)
	return &Kind{Definition: d, Message: message}, nil
}

// Type is the full type name: "MountPoints.storage.cosi.dev".
func (k *Kind) Type() string { return k.Definition.GetResourceType() }

// Namespace is the only namespace that resources of the kind live in.
func (k *Kind) Namespace() string { return k.Definition.GetDefaultNamespace() }

// Sensitive reports whether only an admin may read the content.
func (k *Kind) Sensitive() bool {
	return k.Definition.GetSensitivity() == metapb.ResourceDefinitionSpec_SENSITIVE
}

// ID is the id of the kind's own ResourceDefinitions resource: the type in lower case.
func (k *Kind) ID() string { return strings.ToLower(k.Type()) }

// ShortName is the shortest way to write the kind unmistakably for people: the first label of the type, in lower case.
func (k *Kind) ShortName() string { return plural(k.Type()) }

// Singular is how one resource of the kind is called beside its id: "mountpoint/data".
func (k *Kind) Singular() string {
	if name := k.Definition.GetDisplayType(); name != "" {
		return strings.ToLower(name)
	}
	return singular(plural(k.Type()))
}

// Set is kinds that can be told apart by every one of their names. It may be read by several goroutines; Add needs them out of the way.
type Set struct {
	byType map[string]*Kind
	byName map[string]*Kind // keys in lower case
}

// NewSet returns a set of ks. Two kinds that claim one name are an error.
func NewSet(ks ...*Kind) (*Set, error) {
	s := &Set{byType: map[string]*Kind{}, byName: map[string]*Kind{}}
	for _, k := range ks {
		if err := s.Add(k); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// Add adds k, or changes nothing and returns an error when a name of k is taken.
func (s *Set) Add(k *Kind) error {
	for _, name := range k.Definition.GetAllAliases() {
		if other, taken := s.byName[name]; taken {
			return fmt.Errorf("%s: the name %q belongs to %s", k.Type(), name, other.Type())
		}
	}
	for _, name := range k.Definition.GetAllAliases() {
		s.byName[name] = k
	}
	s.byType[k.Type()] = k
	return nil
}

// Lookup finds a kind by its type, plural, singular, display type or an alias, in any case. The error wraps ErrUnknown and names
// the nearest kinds.
func (s *Set) Lookup(name string) (*Kind, error) {
	lower := strings.ToLower(name)
	if k, ok := s.byName[lower]; ok {
		return k, nil
	}
	near := map[string]bool{}
	for _, candidate := range Nearest(lower, s.shortNames()) {
		near[s.byName[candidate].ShortName()] = true
	}
	if len(near) == 0 {
		return nil, fmt.Errorf("%w %q", ErrUnknown, name)
	}
	hints := slices.Sorted(maps.Keys(near))
	return nil, fmt.Errorf("%w %q (did you mean %s?)", ErrUnknown, name, strings.Join(hints, ", "))
}

// ByType returns the kind with exactly that type, or nil.
func (s *Set) ByType(typ string) *Kind { return s.byType[typ] }

// Desired returns the type whose status has the type observed, "" if there is none.
func (s *Set) Desired(observed string) string {
	for _, k := range s.All() {
		if observed != "" && k.Definition.GetObservedType() == observed {
			return k.Type()
		}
	}
	return ""
}

// All returns the kinds in the order of their types.
func (s *Set) All() []*Kind {
	all := make([]*Kind, 0, len(s.byType))
	for _, k := range s.byType {
		all = append(all, k)
	}
	slices.SortFunc(all, func(a, b *Kind) int { return strings.Compare(a.Type(), b.Type()) })
	return all
}

func (s *Set) shortNames() []string { return slices.Sorted(maps.Keys(s.byName)) }
