package document

import (
	"bytes"
	"errors"
	"regexp"
	"sort"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"
	"go.yaml.in/yaml/v4"

	"github.com/cosi-os/cosi/api/kinds"
)

var resourcesHeader = regexp.MustCompile(`^\s*\[\[\s*resources\s*\]\]`)

// splitTOML reads data as a whole; if that does not work, each [[resources]] of it alone, so that the sound ones are not lost.
func splitTOML(data []byte) []part {
	whole := tomlPart(data, 1)
	if whole.problem == nil {
		return []part{whole}
	}
	var parts []part
	var chunk []byte
	number, begin := 0, 1
	flush := func() {
		if p := tomlPart(chunk, begin); p.problem != nil || len(p.node.Content) > 0 {
			parts = append(parts, p)
		}
	}
	for line := range bytes.Lines(data) {
		number++
		if resourcesHeader.Match(line) && len(chunk) > 0 {
			flush()
			chunk, begin = nil, number
		}
		chunk = append(chunk, line...)
	}
	flush()
	return parts
}

func tomlPart(data []byte, begin int) part {
	node, problem := parseTOML(data)
	shift(node, problem, begin-1)
	return part{line: begin, node: node, problem: problem}
}

// parseTOML returns data as YAML nodes, which know their lines.
func parseTOML(data []byte) (*yaml.Node, *kinds.Problem) {
	// The full decoder checks what the parser below leaves to its caller: keys set twice, tables defined twice, numbers and dates.
	if err := toml.Unmarshal(data, &map[string]any{}); err != nil {
		var at *toml.DecodeError
		if errors.As(err, &at) {
			line, _ := at.Position()
			return nil, &kinds.Problem{Line: line, Message: tomlMessage(at)}
		}
		return nil, &kinds.Problem{Message: tomlMessage(err)}
	}
	b := &tomlBuilder{root: &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map", Line: 1}}
	for i, c := range data {
		if c == '\n' {
			b.newlines = append(b.newlines, i)
		}
	}
	b.parser.Reset(data)
	table := b.root
	for b.parser.NextExpression() {
		switch e := b.parser.Expression(); e.Kind {
		case unstable.Table, unstable.ArrayTable:
			table = b.header(e)
		case unstable.KeyValue:
			b.set(table, e)
		}
	}
	if err := b.parser.Error(); err != nil {
		return nil, &kinds.Problem{Message: tomlMessage(err)}
	}
	return b.root, nil
}

// What a message about TOML quotes: names of keys and tables, and numbers.
var (
	tomlNames   = regexp.MustCompile(`(?s)(key|table) .* (is already defined|already exists|should be a)`)
	tomlNumbers = regexp.MustCompile(`(?s)strconv\.\w+: parsing ".*": `)
)

// tomlMessage is what is wrong with a document of which nobody knows whether it is a secret: nothing of it is quoted.
func tomlMessage(err error) string {
	text := tomlNames.ReplaceAllString(strings.TrimPrefix(err.Error(), "toml: "), "$1 $2")
	return "TOML: " + tomlNumbers.ReplaceAllString(text, "")
}

type tomlBuilder struct {
	parser   unstable.Parser
	newlines []int
	root     *yaml.Node
}

func (b *tomlBuilder) line(n *unstable.Node) int {
	return 1 + sort.SearchInts(b.newlines, int(n.Raw.Offset))
}

// header returns the table that [a.b] or [[a.b]] begins.
func (b *tomlBuilder) header(e *unstable.Node) *yaml.Node {
	table := b.root
	for keys := e.Key(); keys.Next(); {
		key := keys.Node()
		if e.Kind == unstable.ArrayTable && keys.IsLast() {
			list := b.child(table, key, yaml.SequenceNode)
			fresh := &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map", Line: b.line(key)}
			list.Content = append(list.Content, fresh)
			return fresh
		}
		table = b.child(table, key, yaml.MappingNode)
		if table.Kind == yaml.SequenceNode && len(table.Content) > 0 {
			table = table.Content[len(table.Content)-1]
		}
	}
	return table
}

// child returns the value of key in table, made if there is none.
func (b *tomlBuilder) child(table *yaml.Node, key *unstable.Node, kind yaml.Kind) *yaml.Node {
	for i := 0; i+1 < len(table.Content); i += 2 {
		if table.Content[i].Value == string(key.Data) {
			return table.Content[i+1]
		}
	}
	tag := "!!map"
	if kind == yaml.SequenceNode {
		tag = "!!seq"
	}
	value := &yaml.Node{Kind: kind, Tag: tag, Line: b.line(key)}
	table.Content = append(table.Content, b.key(key), value)
	return value
}

func (b *tomlBuilder) key(key *unstable.Node) *yaml.Node {
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: string(key.Data), Line: b.line(key)}
}

func (b *tomlBuilder) set(table *yaml.Node, e *unstable.Node) {
	for keys := e.Key(); keys.Next(); {
		key := keys.Node()
		if !keys.IsLast() {
			table = b.child(table, key, yaml.MappingNode)
			continue
		}
		table.Content = append(table.Content, b.key(key), b.value(e.Value(), b.line(key)))
	}
}

// value converts a value; the parser does not keep the place of every kind of value, so line is that of the key.
func (b *tomlBuilder) value(v *unstable.Node, line int) *yaml.Node {
	if v.Raw.Length > 0 {
		line = b.line(v)
	}
	n := &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: string(v.Data), Line: line}
	switch v.Kind {
	case unstable.Array:
		n.Kind, n.Tag, n.Value = yaml.SequenceNode, "!!seq", ""
		for items := v.Children(); items.Next(); {
			if item := items.Node(); item.Kind != unstable.Comment {
				n.Content = append(n.Content, b.value(item, line))
			}
		}
	case unstable.InlineTable:
		n.Kind, n.Tag, n.Value = yaml.MappingNode, "!!map", ""
		for pairs := v.Children(); pairs.Next(); {
			if pair := pairs.Node(); pair.Kind == unstable.KeyValue {
				b.set(n, pair)
			}
		}
	case unstable.Bool:
		n.Tag = "!!bool"
	case unstable.Integer:
		n.Tag = "!!int"
	case unstable.Float:
		n.Tag, n.Value = "!!float", strings.ReplaceAll(n.Value, "_", "")
	case unstable.String:
		n.Style = yaml.DoubleQuotedStyle
	}
	return n
}
