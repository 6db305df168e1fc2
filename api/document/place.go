package document

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"
)

// maxCopied bounds what the aliases of a document may grow to when it is written out.
const maxCopied = 200_000

// SpecYAML returns the content as it was written, as YAML: what a writer without schemas sends. Empty without one. It fails when aliases
// make it larger than that, or without end.
func (d *Document) SpecYAML() (string, error) {
	budget := maxCopied
	n := withoutAliases(d.spec, &budget)
	switch {
	case budget < 0:
		return "", fmt.Errorf("has more than %d values, or an alias of what it stands in", maxCopied)
	case n == nil:
		return "", nil
	}
	data, err := YAML(n)
	return string(data), err
}

// withoutAliases copies n with everything that aliases stand for, which may lie outside of it.
func withoutAliases(n *yaml.Node, budget *int) *yaml.Node {
	for n != nil && n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	*budget--
	if n == nil || *budget < 0 {
		return nil
	}
	changed := *n
	changed.Anchor, changed.HeadComment, changed.LineComment, changed.FootComment = "", "", "", ""
	changed.Content = nil
	for _, child := range n.Content {
		changed.Content = append(changed.Content, withoutAliases(child, budget))
		if *budget < 0 {
			return nil
		}
	}
	return &changed
}

var step = regexp.MustCompile(`^\.?([^.\[\]]+)|^\[(\d+)\]|^\["((?:[^"\\]|\\.)*)"\]`)

// FieldLine returns the line of the field at path ("metadata.id", "spec.flags[1]"), or that of its nearest ancestor in the document.
func (d *Document) FieldLine(path string) int {
	line, n := d.Line, d.root
	for n != nil && path != "" {
		match := step.FindStringSubmatch(path)
		if match == nil {
			break
		}
		path = path[len(match[0]):]
		at := 0
		if at, n = child(n, match[1], match[2], match[3]); n != nil {
			line = at
		}
	}
	return line
}

// child returns a part of n and its line: of a mapping by its name, of a list by its number, of a map by its key.
func child(n *yaml.Node, name, number, key string) (int, *yaml.Node) {
	for n.Kind == yaml.AliasNode && n.Alias != nil {
		n = n.Alias
	}
	if i, err := strconv.Atoi(number); err == nil && number != "" && n.Kind == yaml.SequenceNode {
		if i >= len(n.Content) {
			return 0, nil
		}
		return n.Content[i].Line, n.Content[i]
	}
	if unquoted, err := strconv.Unquote(`"` + key + `"`); err == nil && key != "" {
		name = unquoted
	}
	if n.Kind != yaml.MappingNode {
		return 0, nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if have := n.Content[i].Value; have == name || have == lowerCamel(name) || have == number && number != "" {
			return n.Content[i].Line, n.Content[i+1]
		}
	}
	return 0, nil
}

// lowerCamel is the JSON name of a field: ignoreRoutes of ignore_routes.
func lowerCamel(name string) string {
	words := strings.Split(name, "_")
	for i, word := range words[1:] {
		if word != "" {
			words[i+1] = strings.ToUpper(word[:1]) + word[1:]
		}
	}
	return strings.Join(words, "")
}
