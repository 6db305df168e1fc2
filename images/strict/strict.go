// Package strict fills structures from YAML and names all mistakes at once, each with file, line and field. The decoder of the YAML library stops
// short of that: it knows no field paths. What reads definitions of images calls it, and what reads the boot server's file of machines.
package strict

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"time"

	"go.yaml.in/yaml/v4"
)

// Checker fills structures and collects all mistakes.
type Checker struct {
	File     string
	Lines    map[string]int // field path → line
	Problems Problems
}

// Parse fills the structure that target points to from the text of a file. Three things may happen: all of it was filled, all but what the Checker's Problems
// name, or nothing, and ok is false: it is no YAML, which is the one Problem then.
func Parse(file string, text []byte, target any) (c *Checker, ok bool) {
	c = &Checker{File: file, Lines: map[string]int{}}
	document := yaml.Node{}
	if err := yaml.Load(text, &document); err != nil {
		line, message := broken(err)
		c.Problems = Problems{{file, line, "", message}}
		return c, false
	}
	root := &document
	if root.Kind == yaml.DocumentNode && len(root.Content) == 1 {
		root = root.Content[0]
	}
	c.value(root, "", reflect.ValueOf(target).Elem())
	return c, true
}

// Empty reports whether the text of a file has no document: it is empty, or has remarks alone.
func Empty(text []byte) bool {
	return errors.Is(yaml.NewDecoder(bytes.NewReader(text)).Decode(&yaml.Node{}), io.EOF)
}

// broken says where and why the YAML itself cannot be read.
func broken(err error) (line int, message string) {
	var at *yaml.LoadError
	if errors.As(err, &at) && at.Mark.Line > 0 {
		return at.Mark.Line, at.Message
	}
	return 1, err.Error()
}

// Problem notes a mistake, unless the field is known to be wrong already.
func (c *Checker) Problem(line int, field, format string, args ...any) {
	if slices.ContainsFunc(c.Problems, func(p Problem) bool { return p.Field == field }) {
		return
	}
	line = max(line, 1)
	c.Problems = append(c.Problems, Problem{c.File, line, field, fmt.Sprintf(format, args...)})
}

var (
	nodeType = reflect.TypeFor[yaml.Node]()
	timeType = reflect.TypeFor[time.Time]()
)

// value sets v from node.
func (c *Checker) value(node *yaml.Node, field string, v reflect.Value) {
	if node.Kind == yaml.AliasNode {
		node = node.Alias
	}
	c.Lines[field] = node.Line
	switch {
	case v.Type() == nodeType:
		if alias := aliasIn(node); alias != nil {
			c.Problem(alias.Line, field, "*%s stands for what is written elsewhere: write it out, a resource is kept as it is", alias.Value)
			return
		}
		v.Set(reflect.ValueOf(*node))
	case v.Type() == timeType || v.Kind() == reflect.String || v.Kind() == reflect.Bool:
		c.scalar(node, field, v)
	case v.Kind() == reflect.Slice:
		if node.Kind != yaml.SequenceNode {
			c.Problem(node.Line, field, "want a list")
			return
		}
		v.Set(reflect.MakeSlice(v.Type(), len(node.Content), len(node.Content)))
		for i, item := range node.Content {
			c.value(item, fmt.Sprintf("%s[%d]", field, i), v.Index(i))
		}
	case v.Kind() == reflect.Struct:
		c.structure(node, field, v)
	}
}

// aliasIn returns an alias in a node.
func aliasIn(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode {
		return n
	}
	for _, child := range n.Content {
		if found := aliasIn(child); found != nil {
			return found
		}
	}
	return nil
}

func (c *Checker) scalar(node *yaml.Node, field string, v reflect.Value) {
	want := map[bool]string{true: "want true or false", false: "want text"}[v.Kind() == reflect.Bool]
	if v.Type() == timeType {
		want = "want a time, as in 2026-01-31T00:00:00Z"
	}
	if node.Kind != yaml.ScalarNode || node.Tag == "!!null" {
		c.Problem(node.Line, field, "%s", want)
		return
	}
	switch {
	case v.Type() == timeType:
		t, err := time.Parse(time.RFC3339, node.Value)
		if err != nil {
			c.Problem(node.Line, field, "%q: %s", node.Value, want)
			return
		}
		v.Set(reflect.ValueOf(t.UTC()))
	case v.Kind() == reflect.Bool:
		if node.Tag != "!!bool" {
			c.Problem(node.Line, field, "%q: %s", node.Value, want)
			return
		}
		v.SetBool(node.Value == "true")
	default:
		v.SetString(node.Value)
	}
}

func (c *Checker) structure(node *yaml.Node, field string, v reflect.Value) {
	if node.Kind != yaml.MappingNode {
		c.Problem(node.Line, field, "want fields (name: value)")
		return
	}
	fields := map[string]int{}
	var known []string
	for i := range v.NumField() {
		if name := v.Type().Field(i).Tag.Get("yaml"); name != "-" {
			fields[name] = i
			known = append(known, name)
		}
	}
	met := map[string]int{}
	for i := 0; i+1 < len(node.Content); i += 2 {
		key, value := node.Content[i], node.Content[i+1]
		path := key.Value
		if field != "" {
			path = field + "." + path
		}
		n, ok := fields[key.Value]
		if !ok {
			c.Problem(key.Line, path, "%s", Among(key.Value, "a field", known))
			continue
		}
		if line, twice := met[key.Value]; twice {
			c.Problem(key.Line, path, "stands in line %d already", line)
			continue
		}
		met[key.Value] = key.Line
		c.value(value, path, v.Field(n))
	}
}
