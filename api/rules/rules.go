// Package rules says in words which rules (protovalidate) a content breaks. The runtime, the client and the image builder say it alike; what
// they say of a Sensitive kind holds no value.
package rules

import (
	"errors"
	"fmt"
	"strings"

	"buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate"
	"buf.build/go/protovalidate"
	"google.golang.org/protobuf/proto"

	"github.com/cosi-os/cosi/api/kinds"
)

// Broken is a rule that is broken.
type Broken struct {
	// Field is a path: "spec.flags[1]".
	Field   string
	Message string
}

// Of lists the broken rules of a content. If it is secret, what an expression says of it is left out, because it may quote it, and so are the keys
// of maps.
func Of(err *protovalidate.ValidationError, secret bool) []Broken {
	var all []Broken
	for _, v := range err.Violations {
		path := v.Proto.GetField()
		message := v.Proto.GetMessage()
		if secret {
			path = withoutKeys(path)
			if rule := v.Proto.GetRule().GetElements(); len(rule) > 0 && strings.HasPrefix(rule[0].GetFieldName(), "cel") {
				message = fmt.Sprintf("breaks the rule %q", v.Proto.GetRuleId())
			}
		}
		field := "spec"
		if text := protovalidate.FieldPathString(path); text != "" {
			field += "." + text
		}
		all = append(all, Broken{field, message})
	}
	return all
}

// withoutKeys returns p with "…" for each key of a map.
func withoutKeys(p *validate.FieldPath) *validate.FieldPath {
	p = proto.CloneOf(p)
	for _, e := range p.GetElements() {
		switch e.GetSubscript().(type) {
		case *validate.FieldPathElement_StringKey, *validate.FieldPathElement_IntKey, *validate.FieldPathElement_UintKey:
			e.Subscript = &validate.FieldPathElement_StringKey{StringKey: "…"}
		}
	}
	return p
}

// Checker checks contents before a node sees them, as the node will. Its validator is made when it is first needed.
type Checker struct {
	validator protovalidate.Validator
}

// Check lists the rules of k that spec breaks. It fails when spec is no content of k, or a rule cannot be evaluated.
func (c *Checker) Check(k *kinds.Kind, spec []byte) ([]Broken, error) {
	if c.validator == nil {
		validator, err := protovalidate.New()
		if err != nil {
			return nil, err
		}
		c.validator = validator
	}
	m, err := k.Unmarshal(spec)
	if err != nil {
		return nil, err
	}
	var invalid *protovalidate.ValidationError
	err = c.validator.Validate(m.Interface())
	if err == nil || !errors.As(err, &invalid) {
		return nil, err
	}
	return Of(invalid, k.Sensitive()), nil
}
