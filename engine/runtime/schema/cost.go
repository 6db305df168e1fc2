package schema

import (
	"fmt"
	"regexp/syntax"

	"buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate"
	pvcel "buf.build/go/protovalidate/cel"
	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/checker"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// affordable fails when evaluating r may cost more than the budget, for a content of the largest size. Only what an expression goes
// through can make it dear; max_items, max_pairs, max_len and max_bytes of the fields say how much that is.
func (b Bounds) affordable(r rule, file protoreflect.FileDescriptor) error {
	this := cel.DynType
	if message, ok := r.of.(protoreflect.MessageDescriptor); ok {
		this = cel.ObjectType(string(message.FullName()))
	}
	env, err := cel.NewEnv(cel.Lib(pvcel.NewLibrary()), cel.TypeDescs(file), cel.Variable("this", this))
	if err != nil {
		return err
	}
	ast, issues := env.Compile(r.expression)
	if issues.Err() != nil {
		return issues.Err()
	}
	estimate, err := env.EstimateCost(ast, sizes{content: uint64(b.Content), of: r.of})
	if err != nil {
		return err
	}
	if estimate.Max > b.RuleCost {
		return fmt.Errorf("it may take %d steps, and %d are allowed: bound what it goes through (max_items, max_len)", estimate.Max, b.RuleCost)
	}
	return nil
}

// perStep is how many instructions of a regular expression go into a step of CEL, about 100 ns.
const perStep = 10

// matchable fails when a pattern is none, or when trying it may cost more than the budget: at the worst, each of its instructions is tried on
// each byte, and a{1000} is a thousand of them.
func (b Bounds) matchable(p pattern) error {
	tree, err := syntax.Parse(p.expression, syntax.Perl)
	if err != nil {
		return err
	}
	program, err := syntax.Compile(tree.Simplify())
	if err != nil {
		return err
	}
	if steps := min(uint64(b.Content), p.most) * uint64(len(program.Inst)) / perStep; steps > b.RuleCost {
		return fmt.Errorf("it may take %d steps, and %d are allowed: bound what it is tried on (max_len)", steps, b.RuleCost)
	}
	return nil
}

// sizes estimates how large what a rule reads can be.
type sizes struct {
	content uint64
	of      protoreflect.Descriptor
}

// EstimateSize follows the path to a field and takes the field's own bound, or the size of the largest content.
func (s sizes) EstimateSize(node checker.AstNode) *checker.SizeEstimate {
	path := node.Path()
	if len(path) == 0 || path[0] != "this" {
		return nil
	}
	return &checker.SizeEstimate{Min: 0, Max: min(s.content, bound(s.rules(path[1:])))}
}

func (s sizes) EstimateCallCost(string, string, *checker.AstNode, []checker.AstNode) *checker.CallEstimate {
	return nil
}

// rules returns those of what is at the end of a path from "this": a field, or an element, key or value of one. nil if there are none.
func (s sizes) rules(path []string) *validate.FieldRules {
	var rules *validate.FieldRules
	message, _ := s.of.(protoreflect.MessageDescriptor)
	if f, ok := s.of.(protoreflect.FieldDescriptor); ok {
		rules, message = fieldRules(f), f.Message()
	}
	for _, name := range path {
		switch {
		case name == "@items":
			rules = rules.GetRepeated().GetItems()
		case name == "@keys":
			rules = rules.GetMap().GetKeys()
		case name == "@values":
			rules = rules.GetMap().GetValues()
		case message == nil || message.Fields().ByName(protoreflect.Name(name)) == nil:
			return nil
		default:
			field := message.Fields().ByName(protoreflect.Name(name))
			rules, message = fieldRules(field), field.Message()
		}
	}
	return rules
}

func fieldRules(f protoreflect.FieldDescriptor) *validate.FieldRules {
	rules, _ := proto.GetExtension(f.Options(), validate.E_Field).(*validate.FieldRules)
	return rules
}

// bound is how large the rules let what they are about be.
func bound(r *validate.FieldRules) uint64 {
	most := uint64(1 << 62)
	if v := r.GetRepeated(); v != nil && v.MaxItems != nil {
		most = v.GetMaxItems()
	}
	if v := r.GetMap(); v != nil && v.MaxPairs != nil {
		most = v.GetMaxPairs()
	}
	if v := r.GetString(); v != nil && v.MaxLen != nil {
		most = v.GetMaxLen()
	}
	if v := r.GetString(); v != nil && v.MaxBytes != nil {
		most = min(most, v.GetMaxBytes())
	}
	if v := r.GetBytes(); v != nil && v.MaxLen != nil {
		most = v.GetMaxLen()
	}
	return most
}
