package schema

import (
	"fmt"

	"buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate"
	"github.com/cosi-os/cosi/api/kinds"
	"github.com/cosi-os/cosi/engine/runtime/state"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// Bounds are what a definition that people bring may cost. Those of the image are not judged: they came with it.
type Bounds struct {
	// Descriptors is their size in bytes.
	Descriptors int
	// Definitions is how many kinds there may be, those of the image included.
	Definitions int
	// Fields of the message and all that it holds.
	Fields int
	// Depth is how deep messages hold each other; one that holds itself counts once.
	Depth int
	// Rules are expressions (CEL) of the message and all that it holds, RuleBytes how long each, and each pattern, may be.
	Rules, RuleBytes int
	// RuleCost is what evaluating one rule or pattern may cost at most, in steps of CEL, for the largest content that a resource may have.
	RuleCost uint64
	// Content is the size of the largest content, in bytes: what rules are estimated for.
	Content int
}

// DefaultBounds suit a node: a rule at its limit takes less than a second.
var DefaultBounds = Bounds{
	Descriptors: 512 << 10, Definitions: 1000, Fields: 1000, Depth: 16, Rules: 64, RuleBytes: 2048, RuleCost: 10_000_000, Content: 1 << 20,
}

// check fails with a FieldError when a kind goes beyond b.
func (b Bounds) check(k *kinds.Kind, others int) error {
	refuse := func(format string, args ...any) error {
		return &state.FieldError{Path: "spec.descriptors", Message: fmt.Sprintf(format, args...)}
	}
	if others >= b.Definitions {
		return fmt.Errorf("%w: there are %d kinds already, and %d are allowed", state.ErrLimit, others, b.Definitions)
	}
	m := measure{seen: map[protoreflect.FullName]bool{}}
	m.message(k.Message, 1)
	switch {
	case m.fields > b.Fields:
		return refuse("have %d fields, and %d are allowed", m.fields, b.Fields)
	case m.depth > b.Depth:
		return refuse("hold messages %d deep, and %d are allowed", m.depth, b.Depth)
	case len(m.rules) > b.Rules:
		return refuse("have %d rules, and %d are allowed", len(m.rules), b.Rules)
	}
	for _, r := range m.rules {
		if n := len(r.expression); n > b.RuleBytes {
			return refuse("rule %q of %s is %d bytes long, and %d are allowed", r.id, r.of.FullName(), n, b.RuleBytes)
		}
		if err := b.affordable(r, k.Message.ParentFile()); err != nil {
			return refuse("rule %q of %s: %v", r.id, r.of.FullName(), err)
		}
	}
	for _, p := range m.patterns {
		if n := len(p.expression); n > b.RuleBytes {
			return refuse("the pattern of %s is %d bytes long, and %d are allowed", p.of.FullName(), n, b.RuleBytes)
		}
		if err := b.matchable(p); err != nil {
			return refuse("the pattern of %s: %v", p.of.FullName(), err)
		}
	}
	return nil
}

// rule is an expression that people brought, of a message or a field.
type rule struct {
	id, expression string
	of             protoreflect.Descriptor
}

// pattern is a regular expression that people brought, of a field or of what it holds.
type pattern struct {
	expression string
	of         protoreflect.Descriptor
	most       uint64 // bytes that the rules beside it let it be tried on
}

// measure goes through a message and all that it holds.
type measure struct {
	seen          map[protoreflect.FullName]bool
	fields, depth int
	rules         []rule
	patterns      []pattern
}

func (m *measure) message(d protoreflect.MessageDescriptor, depth int) {
	m.depth = max(m.depth, depth)
	if m.seen[d.FullName()] {
		return
	}
	m.seen[d.FullName()] = true
	if options, ok := proto.GetExtension(d.Options(), validate.E_Message).(*validate.MessageRules); ok {
		m.add(d, options.GetCel(), options.GetCelExpression())
	}
	for i := range d.Fields().Len() {
		f := d.Fields().Get(i)
		m.fields++
		m.field(f, fieldRules(f))
		if f.Message() != nil {
			m.message(f.Message(), depth+1)
		}
	}
}

// field collects the rules of a field, and of the elements, keys and values that it holds.
func (m *measure) field(f protoreflect.FieldDescriptor, r *validate.FieldRules) {
	if r == nil {
		return
	}
	m.add(f, r.GetCel(), r.GetCelExpression())
	for _, expression := range []string{r.GetString().GetPattern(), r.GetBytes().GetPattern()} {
		if expression != "" {
			m.patterns = append(m.patterns, pattern{expression, f, bound(r)})
		}
	}
	m.field(f, r.GetRepeated().GetItems())
	m.field(f, r.GetMap().GetKeys())
	m.field(f, r.GetMap().GetValues())
}

func (m *measure) add(of protoreflect.Descriptor, rules []*validate.Rule, expressions []string) {
	for _, r := range rules {
		m.rules = append(m.rules, rule{r.GetId(), r.GetExpression(), of})
	}
	for _, e := range expressions {
		m.rules = append(m.rules, rule{e, e, of})
	}
}
