package access

import (
	"fmt"
	"regexp"
	"slices"

	machinepb "github.com/cosi-os/cosi/api/cosi/machine/v1alpha1"
	"github.com/cosi-os/cosi/engine/runtime/state"
)

// Roles is the kind of the resources that Grants are made of.
var Roles = state.Kind{Namespace: NamespaceConfig, Type: "Roles.machine.cosi.dev"}

// Grant is a Role, compiled. It does not change.
type Grant struct {
	Name string // the id of the Role
	spec *machinepb.Role
	ids  []*regexp.Regexp // for each rule; nil: any id
}

// NewGrant compiles a Role. It fails with a state.FieldError.
func NewGrant(name string, r *machinepb.Role) (*Grant, error) {
	g := &Grant{Name: name, spec: r}
	for i, rule := range r.GetRules() {
		if rule.GetIds() == "" {
			g.ids = append(g.ids, nil)
			continue
		}
		pattern, err := regexp.Compile(`\A(?:` + rule.GetIds() + `)\z`)
		if err != nil {
			return nil, &state.FieldError{Path: fmt.Sprintf("spec.rules[%d].ids", i), Message: "is no regular expression: " + rule.GetIds()}
		}
		g.ids = append(g.ids, pattern)
	}
	return g, nil
}

// CheckRole fails with a state.FieldError when a Role does not compile, or gives what no Role can give.
func CheckRole(r *machinepb.Role, d Definitions) error {
	if _, err := NewGrant("", r); err != nil {
		return err
	}
	if len(r.GetOrganisations())+len(r.GetNames())+len(r.GetFingerprints()) == 0 {
		return &state.FieldError{Path: "spec", Message: "names nobody: organisations, names or fingerprints of client certificates"}
	}
	for i, rule := range r.GetRules() {
		for j, kind := range rule.GetKinds() {
			if d.sensitive(kind) {
				return &state.FieldError{Path: fmt.Sprintf("spec.rules[%d].kinds[%d]", i, j), Message: kind + " is sensitive, and only the role admin sees it"}
			}
		}
	}
	return nil
}

// Names reports whether the Role is given to the holder of a certificate.
func (g *Grant) Names(organisations []string, name, fingerprint string) bool {
	return slices.Contains(g.spec.GetNames(), name) || slices.Contains(g.spec.GetFingerprints(), fingerprint) ||
		slices.ContainsFunc(g.spec.GetOrganisations(), func(o string) bool { return slices.Contains(organisations, o) })
}

// granted returns which ids of a kind the grants allow verb on, and whether there are any. A nil Filter is all of them.
func (p Person) granted(verb Verb, k state.Kind) (Filter, bool) {
	var patterns []*regexp.Regexp
	for _, g := range p.Grants {
		for i, rule := range g.spec.GetRules() {
			switch {
			case !allows(rule, verb, k):
			case g.ids[i] == nil:
				return nil, true
			default:
				patterns = append(patterns, g.ids[i])
			}
		}
	}
	if len(patterns) == 0 {
		return nil, false
	}
	return func(id string) bool {
		return slices.ContainsFunc(patterns, func(p *regexp.Regexp) bool { return p.MatchString(id) })
	}, true
}

func allows(r *machinepb.Role_Rule, verb Verb, k state.Kind) bool {
	return has(r.GetVerbs(), string(verb)) && has(r.GetKinds(), k.Type) &&
		(len(r.GetNamespaces()) == 0 || slices.Contains(r.GetNamespaces(), k.Namespace))
}

// has reports whether all names, or one by one, include name.
func has(names []string, name string) bool {
	return slices.Contains(names, name) || slices.Contains(names, "*")
}
