package kinds

import (
	"cmp"
	"encoding/base64"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"
)

// Encode returns the canonical YAML of a marshalled content: fields that are set, by their proto names, in the order of their
// numbers. Decode takes it back to the same bytes. Fields that the kind does not know are left out.
func (k *Kind) Encode(spec []byte) (string, error) {
	message, err := k.Unmarshal(spec)
	if err != nil {
		return "", err
	}
	return EncodeMessage(message)
}

// Unmarshal returns the content as a message that can be inspected field by field.
func (k *Kind) Unmarshal(spec []byte) (protoreflect.Message, error) {
	message := dynamicpb.NewMessage(k.Message)
	if err := proto.Unmarshal(spec, message); err != nil {
		return nil, fmt.Errorf("%s: %w", k.Type(), err)
	}
	return message, nil
}

// EncodeMessage returns the canonical YAML of m.
func EncodeMessage(m protoreflect.Message) (string, error) {
	n, err := EncodeNode(m)
	if err != nil {
		return "", err
	}
	text, err := yaml.Dump(n, yaml.WithIndent(2))
	return string(text), err
}

// EncodeNode returns m as a YAML node, for a larger document.
func EncodeNode(m protoreflect.Message) (*yaml.Node, error) {
	switch m.Descriptor().FullName() {
	case "google.protobuf.Timestamp":
		text, err := timestampText(m)
		return scalarNode("!!str", text), err
	case "google.protobuf.Duration":
		text, err := durationText(m)
		return scalarNode("!!str", text), err
	case "google.protobuf.Struct":
		field := m.Descriptor().Fields().ByName("fields")
		return mapNode(field, m.Get(field).Map())
	case "google.protobuf.ListValue":
		field := m.Descriptor().Fields().ByName("values")
		return listNode(field, m.Get(field).List())
	case "google.protobuf.Value":
		field := m.WhichOneof(m.Descriptor().Oneofs().ByName("kind"))
		if field == nil || field.Name() == "null_value" {
			return scalarNode("!!null", "null"), nil
		}
		return valueNode(field, m.Get(field))
	}
	if wrapper(m.Descriptor()) {
		field := m.Descriptor().Fields().ByName("value")
		return valueNode(field, m.Get(field))
	}
	return fieldsNode(m)
}

func fieldsNode(m protoreflect.Message) (*yaml.Node, error) {
	var set []protoreflect.FieldDescriptor
	m.Range(func(field protoreflect.FieldDescriptor, _ protoreflect.Value) bool {
		set = append(set, field)
		return true
	})
	slices.SortFunc(set, func(a, b protoreflect.FieldDescriptor) int { return cmp.Compare(a.Number(), b.Number()) })
	mapping := &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map"}
	for _, field := range set {
		value, err := fieldNode(field, m.Get(field))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", field.Name(), err)
		}
		mapping.Content = append(mapping.Content, scalarNode("!!str", string(field.Name())), value)
	}
	return flowIfEmpty(mapping), nil
}

// ValueNode returns one field's value as a YAML node; what has no YAML form is null.
func ValueNode(field protoreflect.FieldDescriptor, value protoreflect.Value) *yaml.Node {
	var n *yaml.Node
	var err error
	if field.IsMap() {
		n, err = mapNode(field, value.Map())
	} else {
		n, err = valueNode(field, value)
	}
	if err != nil {
		return scalarNode("!!null", "null")
	}
	return n
}

func fieldNode(field protoreflect.FieldDescriptor, value protoreflect.Value) (*yaml.Node, error) {
	switch {
	case field.IsMap():
		return mapNode(field, value.Map())
	case field.IsList():
		return listNode(field, value.List())
	}
	return valueNode(field, value)
}

func listNode(field protoreflect.FieldDescriptor, l protoreflect.List) (*yaml.Node, error) {
	sequence := &yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq"}
	for i := range l.Len() {
		n, err := valueNode(field, l.Get(i))
		if err != nil {
			return nil, fmt.Errorf("[%d]: %w", i, err)
		}
		sequence.Content = append(sequence.Content, n)
	}
	return flowIfEmpty(sequence), nil
}

func mapNode(field protoreflect.FieldDescriptor, m protoreflect.Map) (*yaml.Node, error) {
	var keys []protoreflect.MapKey
	m.Range(func(key protoreflect.MapKey, _ protoreflect.Value) bool {
		keys = append(keys, key)
		return true
	})
	slices.SortFunc(keys, func(a, b protoreflect.MapKey) int { return compareKeys(field.MapKey(), a, b) })
	mapping := &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map"}
	for _, key := range keys {
		name, err := valueNode(field.MapKey(), key.Value())
		if err != nil {
			return nil, err
		}
		value, err := valueNode(field.MapValue(), m.Get(key))
		if err != nil {
			return nil, fmt.Errorf("[%q]: %w", name.Value, err)
		}
		mapping.Content = append(mapping.Content, name, value)
	}
	return flowIfEmpty(mapping), nil
}

func compareKeys(field protoreflect.FieldDescriptor, a, b protoreflect.MapKey) int {
	switch field.Kind() {
	case protoreflect.StringKind:
		return cmp.Compare(a.String(), b.String())
	case protoreflect.BoolKind:
		return cmp.Compare(strconv.FormatBool(a.Bool()), strconv.FormatBool(b.Bool()))
	case protoreflect.Uint32Kind, protoreflect.Fixed32Kind, protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		return cmp.Compare(a.Uint(), b.Uint())
	}
	return cmp.Compare(a.Int(), b.Int())
}

func valueNode(field protoreflect.FieldDescriptor, value protoreflect.Value) (*yaml.Node, error) {
	if field.Message() != nil {
		return EncodeNode(value.Message())
	}
	tag, text := scalarText(field, value)
	return scalarNode(tag, text), nil
}

// scalarText returns a scalar's YAML tag and text.
func scalarText(field protoreflect.FieldDescriptor, value protoreflect.Value) (tag, text string) {
	switch field.Kind() {
	case protoreflect.BoolKind:
		return "!!bool", strconv.FormatBool(value.Bool())
	case protoreflect.StringKind:
		return "!!str", value.String()
	case protoreflect.BytesKind:
		return "!!str", base64.StdEncoding.EncodeToString(value.Bytes())
	case protoreflect.EnumKind:
		if known := field.Enum().Values().ByNumber(value.Enum()); known != nil {
			return "!!str", string(known.Name())
		}
		return "!!int", strconv.Itoa(int(value.Enum()))
	case protoreflect.FloatKind:
		return floatText(value.Float(), 32)
	case protoreflect.DoubleKind:
		return floatText(value.Float(), 64)
	case protoreflect.Uint32Kind, protoreflect.Fixed32Kind, protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		return "!!int", strconv.FormatUint(value.Uint(), 10)
	}
	return "!!int", strconv.FormatInt(value.Int(), 10)
}

func floatText(f float64, bits int) (tag, text string) {
	switch {
	case math.IsNaN(f):
		return "!!float", ".nan"
	case math.IsInf(f, 1):
		return "!!float", ".inf"
	case math.IsInf(f, -1):
		return "!!float", "-.inf"
	case f == math.Trunc(f) && math.Abs(f) < 1e15 && !math.Signbit(f) || f == math.Trunc(f) && math.Abs(f) < 1e15 && f != 0:
		return "!!int", strconv.FormatFloat(f, 'f', -1, bits)
	}
	return "!!float", strconv.FormatFloat(f, 'g', -1, bits)
}

func scalarNode(tag, text string) *yaml.Node {
	n := &yaml.Node{Kind: yaml.ScalarNode, Tag: tag, Value: text}
	if tag == "!!str" && oldBool(text) {
		n.Style = yaml.SingleQuotedStyle
	}
	return n
}

// oldBool reports whether YAML 1.1, which many programs still read, takes text for true or false.
func oldBool(text string) bool {
	switch strings.ToLower(text) {
	case "y", "n", "yes", "no", "on", "off":
		return true
	}
	return false
}

// flowIfEmpty writes an empty list or mapping as [] or {}: in block style there would be nothing to see.
func flowIfEmpty(n *yaml.Node) *yaml.Node {
	if len(n.Content) == 0 {
		n.Style = yaml.FlowStyle
	}
	return n
}
