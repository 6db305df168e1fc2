// Package rules says in words which rules (protovalidate) a content breaks. The runtime and the client say it alike; what they say of a
// Sensitive kind holds no value.
package rules

import (
	"fmt"
	"strings"

	"buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate"
	"buf.build/go/protovalidate"
	"google.golang.org/protobuf/proto"
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
