package kinds

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"

	"go.yaml.in/yaml/v4"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"
)

// Bounds of one document. Aliases count each time they are followed, so that a small document cannot stand for a huge one.
const (
	maxNodes = 200_000
	maxDepth = 64
)

// Problem is one thing wrong with a document.
type Problem struct {
	// Line is counted from 1; 0 when unknown.
	Line int
	// Field is a path: "spec.flags[1]". Empty for the document as a whole.
	Field   string
	Message string
}

func (p Problem) String() string {
	text := p.Message
	if p.Field != "" {
		text = p.Field + ": " + text
	}
	if p.Line > 0 {
		text = "line " + strconv.Itoa(p.Line) + ": " + text
	}
	return text
}

// Decode reads the content of a resource from YAML or JSON and returns it marshalled, the same bytes for the same content.
// Fields go by their proto name or its lowerCamel form. With any problem there are no bytes; all problems are returned, and those of a
// Sensitive kind quote neither values nor keys.
func (k *Kind) Decode(document []byte) (spec []byte, problems []Problem) {
	root, problem := ParseNode(document)
	if problem != nil {
		return nil, []Problem{*problem}
	}
	return k.DecodeNode(root)
}

// DecodeNode is Decode for a node of a larger document, whose lines it reports. A nil node is an empty content.
func (k *Kind) DecodeNode(n *yaml.Node) (spec []byte, problems []Problem) {
	message := dynamicpb.NewMessage(k.Message)
	d := &decoder{secret: k.Sensitive()}
	if d.message(message, n, "spec"); len(d.problems) > 0 {
		return nil, d.problems
	}
	spec, err := proto.MarshalOptions{Deterministic: true}.Marshal(message)
	if err != nil {
		return nil, []Problem{{Line: line(n), Field: "spec", Message: err.Error()}}
	}
	return spec, nil
}

// DecodeMessage reads n into m. Problems carry the paths of fields below path; they do not quote what is no name of a field.
func DecodeMessage(m protoreflect.Message, n *yaml.Node, path string) []Problem {
	d := &decoder{nameless: true}
	d.message(m, n, path)
	return d.problems
}

// ParseNode reads one YAML or JSON document. An empty one is nil.
func ParseNode(document []byte) (*yaml.Node, *Problem) {
	if json.Valid(document) {
		all, problem := ParseJSON(document)
		if problem != nil || len(all) == 0 {
			return nil, problem
		}
		return all[0], nil
	}
	loader, err := yaml.NewLoader(bytes.NewReader(document))
	if err != nil {
		return nil, syntaxProblem(err)
	}
	var first, second yaml.Node
	if err := loader.Load(&first); err == io.EOF {
		return nil, nil
	} else if err != nil {
		return nil, syntaxProblem(err)
	}
	switch err := loader.Load(&second); {
	case err == nil:
		return nil, &Problem{Line: second.Line, Message: "a second document begins here"}
	case err != io.EOF:
		return nil, syntaxProblem(err)
	}
	if first.Kind != yaml.DocumentNode {
		return &first, nil
	}
	if len(first.Content) == 0 {
		return nil, nil
	}
	return first.Content[0], nil
}

func syntaxProblem(err error) *Problem {
	var many *yaml.LoadErrors
	if errors.As(err, &many) && len(many.Errors) > 0 {
		err = many.Errors[0]
	}
	var one *yaml.LoadError
	if errors.As(err, &one) {
		return &Problem{Line: max(one.Mark.Line, one.ContextMark.Line), Message: anchors.ReplaceAllString(one.Message, "anchor")}
	}
	return &Problem{Message: anchors.ReplaceAllString(err.Error(), "anchor")}
}

// anchors are left out of what is said of a document that cannot be read: nobody knows whether it is a secret, and what follows a & or a * is
// an anchor, be it the middle of a password.
var anchors = regexp.MustCompile(`(?s)anchor '.*'`)

type decoder struct {
	problems []Problem
	nodes    int
	depth    int
	full     bool // a bound was reached; one problem says so
	nameless bool // problems quote no keys that are no names of fields
	secret   bool // problems quote neither those nor keys of maps nor values
}

func (d *decoder) problem(n *yaml.Node, path, format string, args ...any) {
	d.problems = append(d.problems, Problem{Line: line(n), Field: path, Message: fmt.Sprintf(format, args...)})
}

func line(n *yaml.Node) int {
	if n == nil {
		return 0
	}
	return n.Line
}

// enter follows aliases and counts. It returns nil once a bound is reached; leave undoes its depth.
func (d *decoder) enter(n *yaml.Node, path string) *yaml.Node {
	for hops := 0; n != nil && n.Kind == yaml.AliasNode && hops < maxDepth; hops++ {
		n = n.Alias
	}
	d.nodes++
	d.depth++
	if d.full {
		return nil
	}
	if n == nil || n.Kind == yaml.AliasNode || d.nodes > maxNodes || d.depth > maxDepth {
		d.full = true
		d.problem(n, path, "the document is too large or too deep (at most %d values, %d levels)", maxNodes, maxDepth)
		return nil
	}
	return n
}

func (d *decoder) leave() { d.depth-- }

// null reports whether n says nothing: the field stays unset, as in protojson.
func null(n *yaml.Node) bool {
	return n == nil || n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null"
}

func (d *decoder) message(m protoreflect.Message, n *yaml.Node, path string) {
	if n == nil {
		return
	}
	if n = d.enter(n, path); n == nil {
		d.leave()
		return
	}
	defer d.leave()
	if decode := wellKnown(m.Descriptor()); decode != nil {
		decode(d, m, n, path)
		return
	}
	if null(n) {
		return
	}
	if n.Kind != yaml.MappingNode {
		d.problem(n, path, "must be a mapping of fields, not %s", d.describe(n))
		return
	}
	d.fields(m, n, path)
}

func (d *decoder) fields(m protoreflect.Message, n *yaml.Node, path string) {
	seen := map[protoreflect.FieldNumber]int{} // lines
	oneofs := map[protoreflect.FullName]*yaml.Node{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		name, ok := d.key(key, path)
		if !ok {
			continue
		}
		field, at := fieldNamed(m.Descriptor(), name), path+"."+name
		if field == nil {
			d.unknown(m.Descriptor(), key, at, name)
			continue
		}
		at = path + "." + string(field.Name())
		if first, twice := seen[field.Number()]; twice {
			d.problem(key, at, "is set twice (first on line %d)", first)
			continue
		}
		seen[field.Number()] = key.Line
		if of := field.ContainingOneof(); of != nil && !of.IsSynthetic() && !null(follow(value)) {
			if other, taken := oneofs[of.FullName()]; taken {
				d.problem(key, at, "excludes %s (line %d): only one of %s may be set", other.Value, other.Line, list(of.Fields()))
				continue
			}
			oneofs[of.FullName()] = key
		}
		d.field(m, field, value, at)
	}
}

func (d *decoder) key(key *yaml.Node, path string) (string, bool) {
	key = follow(key)
	if key == nil || key.Kind != yaml.ScalarNode {
		d.problem(key, path, "has a key that is not a name")
		return "", false
	}
	if key.ShortTag() == "!!merge" {
		d.problem(key, path, "merge keys (<<) are not supported")
		return "", false
	}
	return key.Value, true
}

func (d *decoder) unknown(m protoreflect.MessageDescriptor, key *yaml.Node, path, name string) {
	var names []string
	for i := range m.Fields().Len() {
		names = append(names, string(m.Fields().Get(i).Name()))
	}
	if d.secret || d.nameless {
		path = path[:len(path)-len("."+name)]
	}
	if near := Nearest(name, names); len(near) > 0 {
		d.problem(key, path, "unknown field (did you mean %s?)", near[0])
		return
	}
	if len(names) == 0 || len(names) > 16 {
		d.problem(key, path, "unknown field")
		return
	}
	d.problem(key, path, "unknown field (there are %s)", list(m.Fields()))
}

func (d *decoder) field(m protoreflect.Message, field protoreflect.FieldDescriptor, n *yaml.Node, path string) {
	if n = d.enter(n, path); n == nil {
		d.leave()
		return
	}
	defer d.leave()
	if null(n) && (field.IsList() || field.IsMap() || !takesNull(field)) {
		return
	}
	switch {
	case field.IsMap():
		d.mapField(m.Mutable(field).Map(), field, n, path)
	case field.IsList():
		d.listField(m.Mutable(field).List(), field, n, path)
	case field.Message() != nil:
		d.message(m.Mutable(field).Message(), n, path)
	default:
		if value, ok := d.scalar(field, n, path); ok {
			m.Set(field, value)
		}
	}
}

func (d *decoder) listField(l protoreflect.List, field protoreflect.FieldDescriptor, n *yaml.Node, path string) {
	if n.Kind != yaml.SequenceNode {
		d.problem(n, path, "must be a list, not %s", d.describe(n))
		return
	}
	for i, item := range n.Content {
		if value, ok := d.element(field, l.NewElement, item, fmt.Sprintf("%s[%d]", path, i)); ok {
			l.Append(value)
		}
	}
}

func (d *decoder) mapField(m protoreflect.Map, field protoreflect.FieldDescriptor, n *yaml.Node, path string) {
	if n.Kind != yaml.MappingNode {
		d.problem(n, path, "must be a mapping, not %s", d.describe(n))
		return
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		name, ok := d.key(n.Content[i], path)
		if !ok {
			continue
		}
		at := fmt.Sprintf("%s[%q]", path, d.shown(name))
		key, err := d.mapKey(field.MapKey(), name)
		if err != nil {
			d.problem(n.Content[i], at, "the key %v", err)
			continue
		}
		if m.Has(key) {
			d.problem(n.Content[i], at, "is set twice")
			continue
		}
		if value, ok := d.element(field.MapValue(), m.NewValue, n.Content[i+1], at); ok {
			m.Set(key, value)
		}
	}
}

// element reads a value of a list or map, where null is no value.
func (d *decoder) element(field protoreflect.FieldDescriptor, fresh func() protoreflect.Value, n *yaml.Node, path string) (protoreflect.Value, bool) {
	if n = d.enter(n, path); n == nil {
		d.leave()
		return protoreflect.Value{}, false
	}
	defer d.leave()
	if null(n) && !takesNull(field) {
		d.problem(n, path, "is empty")
		return protoreflect.Value{}, false
	}
	if field.Message() == nil {
		return d.scalar(field, n, path)
	}
	value := fresh()
	d.message(value.Message(), n, path)
	return value, true
}

func fieldNamed(m protoreflect.MessageDescriptor, name string) protoreflect.FieldDescriptor {
	if field := m.Fields().ByName(protoreflect.Name(name)); field != nil {
		return field
	}
	return m.Fields().ByJSONName(name)
}

func follow(n *yaml.Node) *yaml.Node {
	for hops := 0; n != nil && n.Kind == yaml.AliasNode && hops < maxDepth; hops++ {
		n = n.Alias
	}
	return n
}

// describe names what stands in a document, for "must be …, not …".
func (d *decoder) describe(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	}
	if null(n) {
		return "nothing"
	}
	if d.secret {
		return "a scalar"
	}
	return strconv.Quote(d.quote(n))
}

// quote is a scalar as a problem shows it: cut short, and not at all where it may be a secret.
func (d *decoder) quote(n *yaml.Node) string { return d.shown(shorten(n.Value)) }

func (d *decoder) shown(text string) string {
	if d.secret {
		return "…"
	}
	return text
}

func shorten(s string) string {
	const limit = 64
	if len(s) <= limit {
		return s
	}
	return s[:limit] + "…"
}
