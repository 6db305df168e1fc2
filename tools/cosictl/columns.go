package main

import (
	"regexp"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"
	"google.golang.org/protobuf/reflect/protoreflect"

	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	"github.com/cosi-os/cosi/api/document"
	"github.com/cosi-os/cosi/api/kinds"
)

// row returns the columns of a resource: id, the kind's own, age.
func row(k *kinds.Kind, r *resourcepb.Resource, now time.Time) ([]string, error) {
	message, err := k.Unmarshal(r.GetSpec().GetProtoSpec())
	if err != nil {
		return nil, err
	}
	id := r.GetMetadata().GetId()
	if r.GetMetadata().GetPhase() == "tearingDown" {
		id += " (tearing down)"
	}
	cells := []string{id}
	for _, column := range k.Definition.GetPrintColumns() {
		cells = append(cells, cell(message, r, column.GetJsonPath()))
	}
	return append(cells, age(r, now)), nil
}

func header(k *kinds.Kind) []string {
	cells := []string{"ID"}
	for _, column := range k.Definition.GetPrintColumns() {
		cells = append(cells, column.GetName())
	}
	return append(cells, "AGE")
}

func age(r *resourcepb.Resource, now time.Time) string {
	created := r.GetMetadata().GetCreated()
	if created == nil {
		return ""
	}
	return shortDuration(now.Sub(created.AsTime()))
}

// shortDuration is one number: 5s, 3m, 7h, 12d.
func shortDuration(d time.Duration) string {
	d = max(d, 0)
	for _, unit := range []struct {
		name  string
		each  time.Duration
		until time.Duration
	}{{"s", time.Second, 2 * time.Minute}, {"m", time.Minute, 2 * time.Hour}, {"h", time.Hour, 48 * time.Hour}} {
		if d < unit.until {
			return itoa(int64(d/unit.each)) + unit.name
		}
	}
	return itoa(int64(d/(24*time.Hour))) + "d"
}

var fraction = regexp.MustCompile(`^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)\.\d+Z$`)

var pathStep = regexp.MustCompile(`^\.([A-Za-z0-9_-]+)(\[\*\])?`)

// cell is what a column shows: the fields that a path like {.spec.leases[*].address} leads to, separated by commas.
func cell(spec protoreflect.Message, r *resourcepb.Resource, path string) string {
	path = strings.TrimSuffix(strings.TrimPrefix(path, "{"), "}")
	root, rest, _ := cutStep(path)
	switch root {
	case "metadata":
		return strings.Join(walk(r.GetMetadata().ProtoReflect(), rest), ",")
	case "spec":
		return strings.Join(walk(spec, rest), ",")
	}
	return "?"
}

func cutStep(path string) (name, rest string, ok bool) {
	match := pathStep.FindStringSubmatch(path)
	if match == nil {
		return "", "", false
	}
	return match[1], path[len(match[0]):], true
}

func walk(m protoreflect.Message, path string) []string {
	name, rest, ok := cutStep(path)
	if !ok {
		return []string{compact(m)}
	}
	field := m.Descriptor().Fields().ByName(protoreflect.Name(name))
	if field == nil {
		return []string{"?"}
	}
	switch value := m.Get(field); {
	case field.IsList():
		var all []string
		for i := range value.List().Len() {
			all = append(all, shown(field, value.List().Get(i), rest)...)
		}
		return all
	case field.HasPresence() && !m.Has(field):
		return nil
	default:
		return shown(field, value, rest)
	}
}

func shown(field protoreflect.FieldDescriptor, value protoreflect.Value, rest string) []string {
	if field.Message() != nil && !field.IsMap() {
		return walk(value.Message(), rest)
	}
	if field.Kind() == protoreflect.EnumKind && value.Enum() == 0 {
		return nil
	}
	n := kinds.ValueNode(field, value)
	if n.Kind != yaml.ScalarNode {
		return []string{string(document.JSON(n))}
	}
	return []string{oneLine(n.Value)}
}

// compact writes a small message in a cell: a time, or its fields as name=value, true ones as name alone.
func compact(m protoreflect.Message) string {
	n, err := kinds.EncodeNode(m)
	if err != nil {
		return "?"
	}
	if n.Kind != yaml.MappingNode {
		// To the second: who wants more asks for -o yaml.
		return fraction.ReplaceAllString(oneLine(n.Value), "${1}Z")
	}
	var parts []string
	for i := 0; i+1 < len(n.Content); i += 2 {
		name, value := n.Content[i].Value, n.Content[i+1]
		switch {
		case value.Kind != yaml.ScalarNode:
			parts = append(parts, name+"="+string(document.JSON(value)))
		case value.Value == "true":
			parts = append(parts, name)
		default:
			parts = append(parts, name+"="+oneLine(value.Value))
		}
	}
	return strings.Join(parts, ",")
}

// oneLine makes what a node says harmless to a terminal: no line breaks, no control characters.
func oneLine(s string) string {
	return strings.Map(func(c rune) rune {
		if c < ' ' || c == 0x7f || c >= 0x80 && c < 0xa0 {
			return ' '
		}
		return c
	}, s)
}
