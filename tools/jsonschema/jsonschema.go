// Package jsonschema describes kinds in JSON Schema (draft 2020-12), so that editors complete and check documents of {metadata, spec}.
//
// cosictl schema prints it. Fields have their proto names there, as cosictl itself writes them. Rules that JSON Schema cannot say, expressions
// above all, are left to cosictl validate and the node: a document that they accept is accepted by the schema, as long as it
// is written in that form.
package jsonschema

import (
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/cosi-os/cosi/api/kinds"
)

// Schema is one, or a part of one. Its JSON has the keys in the order of their names.
type Schema map[string]any

const dialect = "https://json-schema.org/draft/2020-12/schema"

// Of returns the schema of a document of one of the kinds.
func Of(all ...*kinds.Kind) Schema {
	b := builder{definitions: Schema{}}
	var documents []any
	for _, k := range all {
		documents = append(documents, b.document(k))
	}
	schema := Schema{"$schema": dialect, "$defs": b.definitions}
	if len(documents) == 1 {
		for key, value := range documents[0].(Schema) {
			schema[key] = value
		}
		return schema
	}
	schema["title"] = "A resource of a COSI node"
	schema["type"] = "object"
	schema["required"] = []string{"metadata"}
	// One branch for each kind, chosen by its type: an editor then says what is wrong with the document, not that it fits none of fifty.
	var branches []any
	for i, k := range all {
		branches = append(branches, Schema{
			"if":   Schema{"properties": Schema{"metadata": Schema{"properties": Schema{"type": Schema{"enum": names(k)}}, "required": []string{"type"}}}},
			"then": documents[i],
		})
	}
	var types []string
	for _, k := range all {
		types = append(types, names(k)...)
	}
	schema["properties"] = Schema{"metadata": Schema{"type": "object", "required": []string{"type"}, "properties": Schema{"type": Schema{"enum": types}}}}
	schema["allOf"] = branches
	return schema
}

// names are those that a document may call a kind by.
func names(k *kinds.Kind) []string {
	all := append([]string{k.Type()}, k.Definition.GetAllAliases()...)
	seen, unique := map[string]bool{}, []string{}
	for _, name := range all {
		if !seen[name] {
			seen[name] = true
			unique = append(unique, name)
		}
	}
	return unique
}

type builder struct{ definitions Schema }

func (b *builder) document(k *kinds.Kind) Schema {
	texts := Schema{"type": "object", "additionalProperties": Schema{"type": "string"}}
	required := []string{"metadata"}
	if message := b.message(k.Message); message["required"] != nil {
		required = append(required, "spec")
	}
	return Schema{
		"title": k.Definition.GetDisplayType(), "description": k.Definition.GetDescription(), "type": "object",
		"required": required, "additionalProperties": false,
		"properties": Schema{
			"metadata": Schema{
				"type": "object", "required": []string{"type", "id"}, "additionalProperties": false,
				"properties": Schema{
					"type":        Schema{"enum": names(k)},
					"id":          Schema{"type": "string", "minLength": 1},
					"namespace":   Schema{"const": k.Namespace()},
					"labels":      texts,
					"annotations": texts,
					// What a node adds may stand in a document and does not count.
					"version": Schema{}, "owner": Schema{}, "phase": Schema{}, "created": Schema{}, "updated": Schema{}, "finalizers": Schema{},
				},
			},
			"spec": b.reference(k.Message),
		},
	}
}

func (b *builder) reference(m protoreflect.MessageDescriptor) Schema {
	return Schema{"$ref": "#/$defs/" + string(m.FullName())}
}

// message returns the schema of a message, which it also puts among the definitions.
func (b *builder) message(m protoreflect.MessageDescriptor) Schema {
	name := string(m.FullName())
	if known, ok := b.definitions[name].(Schema); ok {
		return known
	}
	properties := Schema{}
	schema := Schema{"type": "object", "properties": properties, "additionalProperties": false}
	b.definitions[name] = schema // before its fields: a message may hold itself
	var required []string
	for i := range m.Fields().Len() {
		field := m.Fields().Get(i)
		property, must := b.field(field)
		properties[string(field.Name())] = property
		if must {
			required = append(required, string(field.Name()))
		}
	}
	if required != nil {
		schema["required"] = required
	}
	var exclusive []any
	for i := range m.Oneofs().Len() {
		if of := m.Oneofs().Get(i); !of.IsSynthetic() {
			exclusive = append(exclusive, oneof(of)...)
		}
	}
	if exclusive != nil {
		schema["allOf"] = exclusive
	}
	return schema
}

// oneof forbids each pair of its fields.
func oneof(of protoreflect.OneofDescriptor) []any {
	var pairs []any
	for i := range of.Fields().Len() {
		for j := range i {
			pairs = append(pairs, Schema{"not": Schema{"required": []string{string(of.Fields().Get(j).Name()), string(of.Fields().Get(i).Name())}}})
		}
	}
	return pairs
}

// field returns the schema of a field, and whether it must be there.
func (b *builder) field(field protoreflect.FieldDescriptor) (Schema, bool) {
	rules := rulesOf(field)
	switch {
	case field.IsMap():
		schema := Schema{"type": "object", "additionalProperties": b.value(field.MapValue(), rules.GetMap().GetValues())}
		return mapRules(schema, field, rules)
	case field.IsList():
		schema := Schema{"type": "array", "items": b.value(field, rules.GetRepeated().GetItems())}
		return listRules(schema, rules)
	}
	schema := b.value(field, rules)
	if field.HasPresence() {
		return schema, rules.GetRequired()
	}
	return schema, rules.GetRequired() || !acceptsZero(schema, rules)
}

// value returns the schema of one value of a field.
func (b *builder) value(field protoreflect.FieldDescriptor, rules fieldRules) Schema {
	if m := field.Message(); m != nil {
		if schema := wellKnown(m); schema != nil {
			return schema
		}
		b.message(m)
		return b.reference(m)
	}
	return scalar(field, rules)
}

// wellKnown returns the schema of a message with a form of its own, or nil.
func wellKnown(m protoreflect.MessageDescriptor) Schema {
	switch name := string(m.FullName()); name {
	case "google.protobuf.Timestamp":
		return Schema{"type": "string", "format": "date-time"}
	case "google.protobuf.Duration":
		return Schema{"type": "string", "examples": []string{"1.5s", "10m"}}
	case "google.protobuf.Struct":
		return Schema{"type": "object"}
	case "google.protobuf.ListValue":
		return Schema{"type": "array"}
	case "google.protobuf.Value":
		return Schema{}
	default:
		if wrapped, ok := strings.CutSuffix(strings.TrimPrefix(name, "google.protobuf."), "Value"); ok && m.ParentFile().Package() == "google.protobuf" && wrapped != "" {
			schema := scalar(m.Fields().ByName("value"), nil)
			return Schema{"anyOf": []any{schema, Schema{"type": "null"}}}
		}
	}
	return nil
}
