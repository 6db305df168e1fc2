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

// Person is somebody with a role: by certificate, or Admin on a local socket that only they can open.
type Person struct {
	Role        Role
	Definitions Definitions
}

// Read refuses Sensitive kinds to all but an admin.
func (p Person) Read(k state.Kind) error {
	if p.Role != Admin && p.Definitions.sensitive(k.Type) {
		return denied("%s is sensitive: reading it needs the role admin, yours is %s", k.Type, p.Role)
	}
	return nil
}

// Write allows config and requests with no owner to an operator, meta and whatever has an owner to an admin.
func (p Person) Write(verb Verb, current, wanted *resourcepb.Resource, owner string) error {
	r := target(current, wanted)
	m := r.GetMetadata()
	switch {
	case p.Role == Reader:
		return denied("cannot %s %s: the role reader only reads", verb, state.PointerTo(r))
	case p.Role == Admin:
		return p.admin(verb, r, owner)
	case owner != "":
		return denied("cannot %s %s as owner %q: only the role admin may name an owner, yours is %s", verb, state.PointerTo(r), owner, p.Role)
	case p.Definitions.sensitive(m.GetType()):
		return denied("cannot %s %s: %s is sensitive, that needs the role admin, yours is %s", verb, state.PointerTo(r), m.GetType(), p.Role)
	case m.GetNamespace() == NamespaceMeta:
		return denied("cannot %s %s: writing in the namespace meta needs the role admin, yours is %s", verb, state.PointerTo(r), p.Role)
	case !peopleWrite(m.GetNamespace()):
		return notForPeople(verb, r)
	}
	return p.finalizers(current, wanted)
}

func (p Person) admin(verb Verb, r *resourcepb.Resource, owner string) error {
	namespace := r.GetMetadata().GetNamespace()
	if owner == "" && !peopleWrite(namespace) && namespace != NamespaceMeta {
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
			state.PointerTo(wanted), strings.Join(before, " "), strings.Join(after, " "), p.Role)
	}
	return nil
}

// Prepare removes the provenance: what a person writes is no longer user data's.
func (p Person) Prepare(r *resourcepb.Resource) *resourcepb.Resource {
	return withoutAnnotation(r, AnnotationProvenance)
}

func peopleWrite(namespace string) bool {
	return namespace == NamespaceConfig || namespace == NamespaceRequests
}

func notForPeople(verb Verb, r *resourcepb.Resource) error {
	return denied("cannot %s %s: resources of the namespace %q are written by their owners, people write in %s and %s",
		verb, state.PointerTo(r), r.GetMetadata().GetNamespace(), NamespaceConfig, NamespaceRequests)
}

func sameElements(a, b []string) bool {
	a, b = slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b))
	return slices.Equal(a, b)
}
