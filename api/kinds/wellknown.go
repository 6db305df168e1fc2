package kinds

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// Messages that have a form of their own in protojson have it here too. Any and FieldMask are ordinary messages.
type wellKnownDecoder func(d *decoder, m protoreflect.Message, n *yaml.Node, path string)

func wellKnown(m protoreflect.MessageDescriptor) wellKnownDecoder {
	switch m.FullName() {
	case "google.protobuf.Timestamp":
		return (*decoder).timestamp
	case "google.protobuf.Duration":
		return (*decoder).duration
	case "google.protobuf.Struct":
		return (*decoder).structure
	case "google.protobuf.ListValue":
		return (*decoder).listValue
	case "google.protobuf.Value":
		return (*decoder).value
	}
	if wrapper(m) {
		return (*decoder).wrapped
	}
	return nil
}

// wrapper reports whether m is one of google/protobuf/wrappers.proto: a scalar that may be absent.
func wrapper(m protoreflect.MessageDescriptor) bool {
	switch m.FullName() {
	case "google.protobuf.BoolValue", "google.protobuf.StringValue", "google.protobuf.BytesValue",
		"google.protobuf.Int32Value", "google.protobuf.Int64Value", "google.protobuf.UInt32Value", "google.protobuf.UInt64Value",
		"google.protobuf.FloatValue", "google.protobuf.DoubleValue":
		return true
	}
	return false
}

// takesNull reports whether null is a value of the field's type, not its absence.
func takesNull(field protoreflect.FieldDescriptor) bool {
	return field.Message() != nil && field.Message().FullName() == "google.protobuf.Value"
}

func setTime(m protoreflect.Message, seconds int64, nanos int32) {
	fields := m.Descriptor().Fields()
	if seconds != 0 {
		m.Set(fields.ByName("seconds"), protoreflect.ValueOfInt64(seconds))
	}
	if nanos != 0 {
		m.Set(fields.ByName("nanos"), protoreflect.ValueOfInt32(nanos))
	}
}

func getTime(m protoreflect.Message) (seconds int64, nanos int32) {
	fields := m.Descriptor().Fields()
	return m.Get(fields.ByName("seconds")).Int(), int32(m.Get(fields.ByName("nanos")).Int())
}

func (d *decoder) timestamp(m protoreflect.Message, n *yaml.Node, path string) {
	t, err := time.Parse(time.RFC3339Nano, n.Value)
	if n.Kind != yaml.ScalarNode || err != nil || t.UTC().Year() < 1 || t.UTC().Year() > 9999 {
		d.problem(n, path, "must be a time like 2026-01-31T15:04:05Z, not %s", d.describe(n))
		return
	}
	setTime(m, t.Unix(), int32(t.Nanosecond()))
}

func (d *decoder) duration(m protoreflect.Message, n *yaml.Node, path string) {
	t, err := time.ParseDuration(n.Value)
	if n.Kind != yaml.ScalarNode || err != nil {
		d.problem(n, path, "must be a duration like 1.5s, not %s", d.describe(n))
		return
	}
	setTime(m, int64(t/time.Second), int32(t%time.Second))
}

func (d *decoder) wrapped(m protoreflect.Message, n *yaml.Node, path string) {
	field := m.Descriptor().Fields().ByName("value")
	if value, ok := d.scalar(field, n, path); ok {
		m.Set(field, value)
	}
}

func (d *decoder) structure(m protoreflect.Message, n *yaml.Node, path string) {
	field := m.Descriptor().Fields().ByName("fields")
	if n.Kind == yaml.MappingNode && len(n.Content) == 0 {
		return
	}
	d.mapField(m.Mutable(field).Map(), field, n, path)
}

func (d *decoder) listValue(m protoreflect.Message, n *yaml.Node, path string) {
	field := m.Descriptor().Fields().ByName("values")
	d.listField(m.Mutable(field).List(), field, n, path)
}

func (d *decoder) value(m protoreflect.Message, n *yaml.Node, path string) {
	field := m.Descriptor().Fields().ByName(valueField(n))
	switch field.Name() {
	case "null_value":
		m.Set(field, protoreflect.ValueOfEnum(0))
	case "struct_value", "list_value":
		d.message(m.Mutable(field).Message(), n, path)
	default:
		value, ok := d.scalar(field, n, path)
		if ok && field.Kind() == protoreflect.DoubleKind && (math.IsNaN(value.Float()) || math.IsInf(value.Float(), 0)) {
			d.problem(n, path, "must be a finite number")
			return
		}
		if ok {
			m.Set(field, value)
		}
	}
}

// valueField is the field of google.protobuf.Value that n goes into.
func valueField(n *yaml.Node) protoreflect.Name {
	switch n.Kind {
	case yaml.MappingNode:
		return "struct_value"
	case yaml.SequenceNode:
		return "list_value"
	}
	switch n.ShortTag() {
	case "!!null":
		return "null_value"
	case "!!bool":
		return "bool_value"
	case "!!int", "!!float":
		return "number_value"
	}
	return "string_value"
}

func timestampText(m protoreflect.Message) (string, error) {
	seconds, nanos := getTime(m)
	t := time.Unix(seconds, int64(nanos)).UTC()
	if t.Year() < 1 || t.Year() > 9999 || nanos < 0 || nanos > 999_999_999 {
		return "", fmt.Errorf("seconds %d, nanos %d: not a time", seconds, nanos)
	}
	return t.Format(time.RFC3339Nano), nil
}

func durationText(m protoreflect.Message) (string, error) {
	seconds, nanos := getTime(m)
	if nanos < -999_999_999 || nanos > 999_999_999 || seconds > 0 && nanos < 0 || seconds < 0 && nanos > 0 {
		return "", fmt.Errorf("seconds %d, nanos %d: not a duration", seconds, nanos)
	}
	sign := ""
	if seconds < 0 || nanos < 0 {
		sign = "-"
	}
	text := sign + strings.TrimPrefix(strconv.FormatInt(seconds, 10), "-")
	if nanos != 0 {
		text += strings.TrimRight(fmt.Sprintf(".%09d", max(nanos, -nanos)), "0")
	}
	return text + "s", nil
}
