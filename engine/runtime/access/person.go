package access

import (
	"slices"
	"strings"

	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	"github.com/cosi-os/cosi/engine/runtime/state"
)

// Role is what a person may do, from the organisation of the client certificate.
type Role string

const (
	// Reader reads everything but Sensitive kinds.
	Reader Role = "reader"
	// Operator also writes config and requests, but no Sensitive kind.
	Operator Role = "operator"
	// Admin also reads and writes Sensitive kinds, defines kinds, asserts owners and changes finalizers.
	Admin Role = "admin"
)

// RoleOf returns the most powerful role among the organisations of a certificate, or false.
func RoleOf(organisations []string) (Role, bool) {
	for _, role := range []Role{Admin, Operator, Reader} {
		if slices.Contains(organisations, string(role)) {
			return role, true
		}
	}
	return "", false
}

// Person is somebody with rights: by certificate, or an Admin on a local socket that only they can open.
type Person struct {
	Role Role // empty: only the Grants count
	// Grants are what Roles give on top.
	Grants      []*Grant
	Definitions Definitions
}

// Read shows everything to an admin, all but Sensitive kinds to operators and readers, and to others definitions and what they
// were granted. What is left of a kind that has no definition any more may have been Sensitive.
func (p Person) Read(verb Verb, r state.Pointer) (Filter, error) {
	switch {
	case p.Role == Admin:
		return nil, nil
	case p.Definitions(r.Type) == nil:
		return nil, denied("cannot %s %s: it has no definition, which needs the role admin, yours is %s", verb, name(r), p)
	case p.Definitions.sensitive(r.Type):
		return nil, denied("%s is sensitive: reading it needs the role admin, yours is %s", r.Type, p)
	case p.Role != "" || r.Namespace == NamespaceMeta: // definitions say what there can be, not what there is
		return nil, nil
	}
	shown, any := p.granted(verb, r.Kind)
	if any && (r.ID == "" || shown == nil || shown(r.ID)) {
		return shown, nil
	}
	return nil, denied("cannot %s %s: yours is %s, and no rule of it says so", verb, name(r), p)
}

// Write allows config and requests with no owner to an operator, of these what was granted to others, and meta and whatever has an owner
// to an admin.
func (p Person) Write(verb Verb, current, wanted *resourcepb.Resource, owner string) error {
	r := state.PointerTo(target(current, wanted))
	switch {
	case p.Role == Admin:
		return p.admin(verb, r, owner)
	case p.Role != Operator && !p.mayWrite(verb, r):
		return p.refuse(verb, r)
	case owner != "":
		return denied("cannot %s %s as owner %q: only the role admin may name an owner, yours is %s", verb, r, owner, p)
	case p.Definitions.sensitive(r.Type):
		return denied("cannot %s %s: %s is sensitive, that needs the role admin, yours is %s", verb, r, r.Type, p)
	case r.Namespace == NamespaceMeta:
		return denied("cannot %s %s: writing in the namespace meta needs the role admin, yours is %s", verb, r, p)
	case !peopleWrite(r.Namespace):
		return notForPeople(verb, r)
	}
	return p.finalizers(current, wanted)
}

// mayWrite reports whether a grant allows it.
func (p Person) mayWrite(verb Verb, r state.Pointer) bool {
	shown, any := p.granted(verb, r.Kind)
	return any && (shown == nil || shown(r.ID))
}

func (p Person) refuse(verb Verb, r state.Pointer) error {
	if p.Role == Reader && len(p.Grants) == 0 {
		return denied("cannot %s %s: the role reader only reads", verb, r)
	}
	return denied("cannot %s %s: yours is %s, and no rule of it says so", verb, r, p)
}

func (p Person) admin(verb Verb, r state.Pointer, owner string) error {
	if owner == "" && !peopleWrite(r.Namespace) && r.Namespace != NamespaceMeta {
		return notForPeople(verb, r)
	}
	return nil
}

// finalizers are the controllers' own; an operator who could remove one could pull a resource from under its controller.
func (p Person) finalizers(current, wanted *resourcepb.Resource) error {
	if wanted == nil {
		return nil
	}
	before, after := current.GetMetadata().GetFinalizers(), wanted.GetMetadata().GetFinalizers()
	if !sameElements(before, after) {
		return denied("cannot change the finalizers of %s from [%s] to [%s]: that needs the role admin, yours is %s",
			state.PointerTo(wanted), strings.Join(before, " "), strings.Join(after, " "), p)
	}
	return nil
}

// String names the roles: "operator", "operator and the Roles db, web".
func (p Person) String() string {
	var names []string
	for _, g := range p.Grants {
		names = append(names, g.Name)
	}
	switch roles := strings.Join(names, ", "); {
	case roles == "":
		return string(p.Role)
	case p.Role == "":
		return "the Role " + roles
	default:
		return string(p.Role) + " and the Role " + roles
	}
}

// Prepare removes the provenance: what a person writes is no longer user data's.
func (p Person) Prepare(r *resourcepb.Resource) *resourcepb.Resource {
	return withoutAnnotation(r, AnnotationProvenance)
}

func peopleWrite(namespace string) bool {
	return namespace == NamespaceConfig || namespace == NamespaceRequests
}

func notForPeople(verb Verb, r state.Pointer) error {
	return denied("cannot %s %s: resources of the namespace %q are written by their owners, people write in %s and %s",
		verb, r, r.Namespace, NamespaceConfig, NamespaceRequests)
}

// name leaves out an id that there is not.
func name(r state.Pointer) string {
	if r.ID == "" {
		return r.Kind.String()
	}
	return r.String()
}

func sameElements(a, b []string) bool {
	a, b = slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b))
	return slices.Equal(a, b)
}
