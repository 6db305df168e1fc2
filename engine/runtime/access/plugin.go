package access

import (
	"maps"
	"slices"
	"sync/atomic"

	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	"github.com/cosi-os/cosi/api/declaration"
	"github.com/cosi-os/cosi/engine/runtime/state"
)

// Plugin is the process behind a plugin's socket. It reads its inputs and outputs and writes its outputs as their owner; of an input it
// may only add and remove its own finalizer.
type Plugin struct {
	declaration *declaration.Declaration
	// rights is the declaration, or what a registration left of it.
	rights atomic.Pointer[Rights]
}

// Rights are the types that a plugin may use.
type Rights struct {
	Inputs  []string
	Outputs []string
}

// NewPlugin returns the identity that a declaration describes.
func NewPlugin(d *declaration.Declaration) *Plugin {
	p := &Plugin{declaration: d}
	p.Restore()
	return p
}

// Restore gives back all that the declaration grants: the session that narrowed it is over.
func (p *Plugin) Restore() {
	rights := &Rights{Outputs: p.declaration.Outputs}
	for _, input := range p.declaration.Inputs {
		rights.Inputs = append(rights.Inputs, input.Type)
	}
	p.rights.Store(rights)
}

// Narrow takes away what r does not name. It fails with ErrDenied, and changes nothing, when r names what the declaration does not.
func (p *Plugin) Narrow(r Rights) error {
	for _, typ := range r.Inputs {
		if !p.declaration.Reads(typ) {
			return denied("plugin %s registers the input %s, which its declaration does not have", p.declaration.Name, typ)
		}
	}
	for _, typ := range r.Outputs {
		if !p.declaration.Writes(typ) {
			return denied("plugin %s registers the output %s, which its declaration does not have", p.declaration.Name, typ)
		}
	}
	p.rights.Store(&r)
	return nil
}

// Read allows inputs and outputs, and to an operator all that it may write and the definitions.
func (p *Plugin) Read(verb Verb, r state.Pointer) (Filter, error) {
	rights := p.rights.Load()
	switch {
	case slices.Contains(rights.Inputs, r.Type), slices.Contains(rights.Outputs, r.Type):
		return nil, nil
	case p.declaration.Operator && (peopleWrite(r.Namespace) || r.Namespace == NamespaceMeta):
		return nil, nil
	}
	return nil, denied("plugin %s cannot %s %s: %s", p.declaration.Name, verb, r.Type, p.undeclared(r.Type, "neither an input nor an output"))
}

// undeclared tells a right that was never there from one that the registration gave away.
func (p *Plugin) undeclared(typ, what string) string {
	if p.declaration.Reads(typ) || p.declaration.Writes(typ) {
		return "it is declared, but the plugin did not register it"
	}
	return "its declaration names it as " + what
}

// Write allows outputs with the plugin as owner, finalizers of inputs, and to an operator what people may write, and to define kinds.
func (p *Plugin) Write(verb Verb, current, wanted *resourcepb.Resource, owner string) error {
	name, r := p.declaration.Name, target(current, wanted)
	m := r.GetMetadata()
	rights := p.rights.Load()
	switch {
	case slices.Contains(rights.Outputs, m.GetType()):
		return p.output(verb, current, wanted, owner)
	case p.declaration.Operator && owner == "" && (peopleWrite(m.GetNamespace()) || defines(verb, m)):
		return nil
	case !slices.Contains(rights.Inputs, m.GetType()):
		return denied("plugin %s cannot %s %s: %s", name, verb, state.PointerTo(r), p.undeclared(m.GetType(), "no output"))
	case verb != Update:
		return denied("plugin %s cannot %s %s: it is an input", name, verb, state.PointerTo(r))
	case !p.declaration.Finalizes(m.GetType()):
		return denied("plugin %s cannot update %s: it is an input, and the declaration does not let the plugin put finalizers on it", name, state.PointerTo(r))
	}
	return p.finalizer(current, wanted, owner)
}

// defines reports whether a write brings a kind of people, or changes one.
func defines(verb Verb, m *resourcepb.Metadata) bool {
	return m.GetNamespace() == NamespaceMeta && m.GetType() == typeDefinitions && (verb == Create || verb == Update)
}

func (p *Plugin) output(verb Verb, current, wanted *resourcepb.Resource, owner string) error {
	name, r := p.declaration.Name, target(current, wanted)
	if owner != name {
		return denied("plugin %s cannot %s %s as owner %q: it writes as %q", name, verb, state.PointerTo(r), owner, name)
	}
	if verb == Update && current != nil && current.GetMetadata().GetOwner() != name {
		return denied("plugin %s cannot update %s: its owner is %q", name, state.PointerTo(r), current.GetMetadata().GetOwner())
	}
	return nil
}

// finalizer allows an update of an input when nothing but the plugin's own finalizer comes or goes. wanted may carry either form of the
// content, or both: what it carries must be what is there.
func (p *Plugin) finalizer(current, wanted *resourcepb.Resource, owner string) error {
	name, before, after := p.declaration.Name, current.GetMetadata(), wanted.GetMetadata()
	if current == nil {
		return nil // There is none: the update ends with ErrNotFound.
	}
	if owner != before.GetOwner() {
		return denied("plugin %s cannot update %s as owner %q: the resource's owner is %q", name, state.PointerTo(wanted), owner, before.GetOwner())
	}
	if field := changed(current, wanted); field != "" {
		return denied("plugin %s cannot change the %s of %s: it is an input, only the finalizer %q may come and go", name, field, state.PointerTo(wanted), name)
	}
	if !sameElements(without(before.GetFinalizers(), name), without(after.GetFinalizers(), name)) {
		return denied("plugin %s cannot change finalizers of others on %s: only %q may come and go", name, state.PointerTo(wanted), name)
	}
	return nil
}

// changed names the first thing beside finalizers, version and times, which the store keeps, that differs.
func changed(current, wanted *resourcepb.Resource) string {
	before, after := current.GetMetadata(), wanted.GetMetadata()
	switch {
	case after.GetPhase() != "" && after.GetPhase() != before.GetPhase():
		return "phase"
	case after.GetOwner() != before.GetOwner():
		return "owner"
	case !maps.Equal(before.GetLabels(), after.GetLabels()):
		return "labels"
	case !maps.Equal(before.GetAnnotations(), after.GetAnnotations()):
		return "annotations"
	case !sameContent(current.GetSpec(), wanted.GetSpec()):
		return "content"
	}
	return ""
}

func sameContent(before, after *resourcepb.Spec) bool {
	if len(after.GetProtoSpec()) == 0 && after.GetYamlSpec() != "" {
		return after.GetYamlSpec() == before.GetYamlSpec()
	}
	return string(after.GetProtoSpec()) == string(before.GetProtoSpec())
}

func without(list []string, element string) []string {
	return slices.DeleteFunc(slices.Clone(list), func(s string) bool { return s == element })
}

// Prepare returns r: an operator may set the provenance.
func (p *Plugin) Prepare(r *resourcepb.Resource) *resourcepb.Resource { return r }
