package jsonschema

import (
	"math"

	"buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

type fieldRules = *validate.FieldRules

func rulesOf(field protoreflect.FieldDescriptor) fieldRules {
	rules, _ := proto.GetExtension(field.Options(), validate.E_Field).(*validate.FieldRules)
	return rules
}

// scalar returns the schema of a value that is no message.
func scalar(field protoreflect.FieldDescriptor, rules fieldRules) Schema {
	var schema Schema
	switch field.Kind() {
	case protoreflect.BoolKind:
		schema = Schema{"type": "boolean"}
		if r := rules.GetBool(); r != nil && r.Const != nil {
			schema["const"] = r.GetConst()
		}
	case protoreflect.StringKind:
		schema = text(rules.GetString())
	case protoreflect.BytesKind:
		schema = Schema{"type": "string", "contentEncoding": "base64"}
	case protoreflect.EnumKind:
		schema = enum(field.Enum(), rules.GetEnum())
	case protoreflect.FloatKind, protoreflect.DoubleKind:
		schema = Schema{"type": []string{"number", "string"}} // "NaN" and "Infinity" are strings
		bounds(schema, rules)
	default:
		schema = integer(field.Kind())
		bounds(schema, rules)
	}
	if rules.GetIgnore() == validate.Ignore_IGNORE_IF_ZERO_VALUE && len(schema) > 1 {
		return Schema{"anyOf": []any{schema, Schema{"const": zero(field.Kind())}}}
	}
	return schema
}

func zero(kind protoreflect.Kind) any {
	switch kind {
	case protoreflect.BoolKind:
		return false
	case protoreflect.StringKind, protoreflect.BytesKind, protoreflect.EnumKind:
		return ""
	}
	return 0
}

func text(r *validate.StringRules) Schema {
	schema := Schema{"type": "string"}
	if r == nil {
		return schema
	}
	set := func(key string, value any, there bool) {
		if there {
			schema[key] = value
		}
	}
	set("const", r.GetConst(), r.Const != nil)
	set("minLength", r.GetMinLen(), r.MinLen != nil)
	set("maxLength", r.GetMaxLen(), r.MaxLen != nil)
	set("pattern", r.GetPattern(), r.Pattern != nil)
	set("enum", r.GetIn(), len(r.GetIn()) > 0)
	set("not", Schema{"enum": r.GetNotIn()}, len(r.GetNotIn()) > 0)
	if r.Len != nil {
		schema["minLength"], schema["maxLength"] = r.GetLen(), r.GetLen()
	}
	return schema
}

func enum(e protoreflect.EnumDescriptor, r *validate.EnumRules) Schema {
	excluded := map[protoreflect.EnumNumber]bool{}
	for _, n := range r.GetNotIn() {
		excluded[protoreflect.EnumNumber(n)] = true
	}
	var names []string
	for i := range e.Values().Len() {
		if value := e.Values().Get(i); !excluded[value.Number()] {
			names = append(names, string(value.Name()))
		}
	}
	return Schema{"enum": names}
}

// integer bounds what fits into the kind. 64 bits may be written as a string: not every program that writes JSON has such numbers.
func integer(kind protoreflect.Kind) Schema {
	switch kind {
	case protoreflect.Uint32Kind, protoreflect.Fixed32Kind:
		return Schema{"type": "integer", "minimum": 0, "maximum": math.MaxUint32}
	case protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		return Schema{"type": []string{"integer", "string"}, "minimum": 0, "pattern": "^[0-9]+$"}
	case protoreflect.Int64Kind, protoreflect.Sint64Kind, protoreflect.Sfixed64Kind:
		return Schema{"type": []string{"integer", "string"}, "pattern": "^-?[0-9]+$"}
	}
	return Schema{"type": "integer", "minimum": math.MinInt32, "maximum": math.MaxInt32}
}

// bounds adds the rules of whatever type of number r has: they go by the same names in each.
func bounds(schema Schema, r fieldRules) {
	m := numberRules(r)
	if m == nil {
		return
	}
	for name, key := range map[protoreflect.Name]string{
		"const": "const", "lt": "exclusiveMaximum", "lte": "maximum", "gt": "exclusiveMinimum", "gte": "minimum",
	} {
		if field := m.Descriptor().Fields().ByName(name); field != nil && m.Has(field) {
			schema[key] = m.Get(field).Interface()
		}
	}
	if field := m.Descriptor().Fields().ByName("in"); field != nil && m.Get(field).List().Len() > 0 {
		var values []any
		for i := range m.Get(field).List().Len() {
			values = append(values, m.Get(field).List().Get(i).Interface())
		}
		schema["enum"] = values
	}
}

// numberRules returns the rules of a type of number, nil if there are none.
func numberRules(r fieldRules) protoreflect.Message {
	if r == nil {
		return nil
	}
	m := r.ProtoReflect()
	of := m.WhichOneof(m.Descriptor().Oneofs().ByName("type"))
	if of == nil || of.Message().Fields().ByName("gte") == nil {
		return nil
	}
	return m.Get(of).Message()
}

func listRules(schema Schema, rules fieldRules) (Schema, bool) {
	r := rules.GetRepeated()
	if r != nil && r.MinItems != nil {
		schema["minItems"] = r.GetMinItems()
	}
	if r != nil && r.MaxItems != nil {
		schema["maxItems"] = r.GetMaxItems()
	}
	if r.GetUnique() {
		schema["uniqueItems"] = true
	}
	return schema, rules.GetRequired() || r.GetMinItems() > 0 && rules.GetIgnore() != validate.Ignore_IGNORE_IF_ZERO_VALUE
}

func mapRules(schema Schema, field protoreflect.FieldDescriptor, rules fieldRules) (Schema, bool) {
	r := rules.GetMap()
	if r != nil && r.MinPairs != nil {
		schema["minProperties"] = r.GetMinPairs()
	}
	if r != nil && r.MaxPairs != nil {
		schema["maxProperties"] = r.GetMaxPairs()
	}
	if keys := r.GetKeys().GetString(); keys != nil && field.MapKey().Kind() == protoreflect.StringKind {
		schema["propertyNames"] = text(keys)
	}
	return schema, rules.GetRequired() || r.GetMinPairs() > 0 && rules.GetIgnore() != validate.Ignore_IGNORE_IF_ZERO_VALUE
}

// acceptsZero reports whether the rules let the zero value pass: a field without presence has it when it is not there.
func acceptsZero(schema Schema, rules fieldRules) bool {
	if rules == nil || rules.GetIgnore() != validate.Ignore_IGNORE_UNSPECIFIED {
		return true
	}
	if e := rules.GetEnum(); e != nil {
		for _, n := range e.GetNotIn() {
			if n == 0 {
				return false
			}
		}
		return len(e.GetIn()) == 0
	}
	if s := rules.GetString(); s != nil {
		return accepts(schema, "")
	}
	if numberRules(rules) != nil {
		return accepts(schema, 0)
	}
	return true
}
