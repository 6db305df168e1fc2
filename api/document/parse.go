package document

import (
	"bytes"
	"path/filepath"
	"regexp"
	"strings"

	"go.yaml.in/yaml/v4"

	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	"github.com/cosi-os/cosi/api/kinds"
)

// part is a value of the input: a document, or a list of them.
type part struct {
	line    int
	node    *yaml.Node
	problem *kinds.Problem
}

// Parse reads every document of data. The format is told by the extension of source (.yaml, .yml, .json, .toml), otherwise by the
// content. Beside documents one after the other (YAML, JSON), a list of documents and {resources: […]} are understood in each format.
// A document with a problem is not returned, those beside it are.
func Parse(source string, data []byte) ([]*Document, []Problem) {
	data = bytes.TrimPrefix(data, []byte("\ufeff"))
	r := &reader{source: source}
	for _, p := range split(source, data) {
		r.part(p)
	}
	return r.documents, r.problems
}

func split(source string, data []byte) []part {
	switch strings.ToLower(filepath.Ext(source)) {
	case ".yaml", ".yml":
		return splitYAML(data)
	case ".json":
		return splitJSON(data)
	case ".toml":
		return splitTOML(data)
	}
	if start := bytes.TrimSpace(data); len(start) > 0 && (start[0] == '{' || start[0] == '[') {
		if parts := splitJSON(data); parts[0].problem == nil {
			return parts
		}
	}
	if looksLikeTOML(data) {
		return splitTOML(data)
	}
	return splitYAML(data)
}

var tomlStart = regexp.MustCompile(`^\s*(\[\[?\s*["'A-Za-z0-9_-]+[^,:]*\]|["'A-Za-z0-9_.-]+\s*=)`)

// looksLikeTOML looks at the first line that says something.
func looksLikeTOML(data []byte) bool {
	for line := range bytes.Lines(data) {
		if text := bytes.TrimSpace(line); len(text) > 0 && text[0] != '#' {
			return tomlStart.Match(line)
		}
	}
	return false
}

var marker = regexp.MustCompile(`^(---|\.\.\.)(\s|$)`)

// splitYAML cuts at the document markers, which can stand nowhere else at the beginning of a line, so that each document is read alone.
func splitYAML(data []byte) []part {
	var parts []part
	var chunk []byte
	number, begin := 0, 1
	flush := func() {
		node, problem := kinds.ParseNode(chunk)
		shift(node, problem, begin-1)
		if node != nil || problem != nil {
			parts = append(parts, part{line: begin, node: node, problem: problem})
		}
	}
	for line := range bytes.Lines(data) {
		number++
		if marker.Match(line) && len(chunk) > 0 {
			flush()
			chunk, begin = nil, number
		}
		chunk = append(chunk, line...)
	}
	flush()
	return parts
}

// shift moves the lines of a node that was read from the middle of an input.
func shift(n *yaml.Node, p *kinds.Problem, lines int) {
	if p != nil && p.Line > 0 {
		p.Line += lines
	}
	if n == nil || lines == 0 {
		return
	}
	n.Line += lines
	for _, child := range n.Content {
		shift(child, nil, lines)
	}
}

type reader struct {
	source    string
	index     int
	documents []*Document
	problems  []Problem
}

func (r *reader) part(p part) {
	n := p.node
	switch {
	case p.problem != nil:
		r.index++
		line := p.problem.Line
		if line == 0 {
			line = p.line
		}
		r.problems = append(r.problems, Problem{Source: r.source, Document: r.index, Line: line, Field: p.problem.Field, Message: p.problem.Message})
	case n == nil || n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null":
	case n.Kind == yaml.SequenceNode:
		for _, item := range n.Content {
			r.document(item)
		}
	case n.Kind == yaml.MappingNode && len(n.Content) == 2 && n.Content[0].Value == "resources" && n.Content[1].Kind == yaml.SequenceNode:
		r.part(part{node: n.Content[1]})
	default:
		r.document(n)
	}
}

// document reads the outer shape of one document and keeps it if that is sound.
func (r *reader) document(n *yaml.Node) {
	r.index++
	for n.Kind == yaml.AliasNode && n.Alias != nil {
		n = n.Alias
	}
	d := &Document{Source: r.source, Index: r.index, Line: n.Line, root: n}
	before := len(r.problems)
	report := func(line int, field, message string) {
		r.problems = append(r.problems, d.problem(kinds.Problem{Line: line, Field: field, Message: message}))
	}
	if n.Kind != yaml.MappingNode {
		report(n.Line, "", "is not a resource: want a mapping with metadata and spec")
		return
	}
	var late []kinds.Problem
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		switch {
		case seen[key.Value] && (key.Value == "metadata" || key.Value == "spec"):
			late = append(late, kinds.Problem{Line: key.Line, Field: key.Value, Message: "is set twice"})
		case key.Value == "metadata":
			late = append(late, d.readMetadata(value)...)
		case key.Value == "spec":
			d.spec = value
		default:
			p := kinds.Problem{Line: key.Line, Message: "has an unknown field (a resource has metadata and spec)"}
			if key.Value == "apiVersion" || key.Value == "kind" {
				p.Field, p.Message = key.Value, "unknown field (the kind is metadata.type)"
			}
			late = append(late, p)
		}
		seen[key.Value] = true
	}
	for _, p := range late {
		report(p.Line, p.Field, p.Message)
	}
	if d.Metadata.Type == "" && len(late) == 0 {
		report(n.Line, "metadata.type", "is missing")
	}
	if d.Metadata.ID == "" && len(late) == 0 {
		report(n.Line, "metadata.id", "is missing")
	}
	if len(r.problems) == before {
		r.documents = append(r.documents, d)
	}
}

func (d *Document) readMetadata(n *yaml.Node) []kinds.Problem {
	m := &resourcepb.Metadata{}
	problems := kinds.DecodeMessage(m.ProtoReflect(), withText(n), "metadata")
	d.Metadata = Metadata{Namespace: m.GetNamespace(), Type: m.GetType(), ID: m.GetId(), Labels: m.GetLabels(), Annotations: m.GetAnnotations()}
	return problems
}

// withText returns metadata with the version as text: a person may write it without quotes, and it does not count.
func withText(n *yaml.Node) *yaml.Node {
	if n.Kind != yaml.MappingNode {
		return n
	}
	changed := *n
	changed.Content = append([]*yaml.Node(nil), n.Content...)
	for i := 0; i+1 < len(changed.Content); i += 2 {
		if value := changed.Content[i+1]; changed.Content[i].Value == "version" && value.Kind == yaml.ScalarNode {
			text := *value
			text.Tag = "!!str"
			changed.Content[i+1] = &text
		}
	}
	return &changed
}
