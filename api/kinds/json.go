package kinds

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sort"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"
)

// ParseJSON reads JSON values, one after the other, as YAML nodes. At a syntax error it stops: what was read is returned with the problem.
//
// The YAML parser is not used because it refuses tabs and surrogate pairs, which are fine in JSON.
func ParseJSON(data []byte) ([]*yaml.Node, *Problem) {
	r := &jsonReader{decoder: json.NewDecoder(bytes.NewReader(data)), data: data}
	r.decoder.UseNumber()
	for i, c := range data {
		if c == '\n' {
			r.newlines = append(r.newlines, i)
		}
	}
	var all []*yaml.Node
	for {
		n, err := r.value(0)
		if err == io.EOF {
			return all, nil
		}
		if err != nil {
			return all, r.problem(err)
		}
		all = append(all, n)
	}
}

type jsonReader struct {
	decoder  *json.Decoder
	data     []byte
	newlines []int
}

var errDepth = errors.New("is nested too deep")

func (r *jsonReader) problem(err error) *Problem {
	offset := int(r.decoder.InputOffset())
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) {
		offset = int(syntax.Offset) - 1
	}
	if errors.Is(err, io.ErrUnexpectedEOF) {
		offset = len(r.data)
		err = errors.New("ends in the middle of a value")
	}
	return &Problem{Line: r.line(offset), Message: "JSON: " + strings.TrimPrefix(err.Error(), "json: ")}
}

func (r *jsonReader) line(offset int) int {
	return 1 + sort.SearchInts(r.newlines, offset)
}

// next returns the next token and its line.
func (r *jsonReader) next() (json.Token, int, error) {
	token, err := r.decoder.Token()
	// The offset is that of the token's end; no JSON token spans lines.
	return token, r.line(int(r.decoder.InputOffset()) - 1), err
}

func (r *jsonReader) value(depth int) (*yaml.Node, error) {
	token, line, err := r.next()
	if err != nil {
		return nil, err
	}
	if depth > maxDepth {
		return nil, errDepth
	}
	n := &yaml.Node{Kind: yaml.ScalarNode, Line: line}
	switch token := token.(type) {
	case nil:
		n.Tag, n.Value = "!!null", "null"
	case bool:
		n.Tag, n.Value = "!!bool", strconv.FormatBool(token)
	case string:
		n.Tag, n.Value, n.Style = "!!str", token, yaml.DoubleQuotedStyle
	case json.Number:
		n.Tag, n.Value = "!!int", token.String()
		if strings.ContainsAny(n.Value, ".eE") {
			n.Tag = "!!float"
		}
	case json.Delim:
		return r.composite(n, token, depth)
	}
	return n, nil
}

func (r *jsonReader) composite(n *yaml.Node, open json.Delim, depth int) (*yaml.Node, error) {
	switch open {
	case '{':
		n.Kind, n.Tag = yaml.MappingNode, "!!map"
	case '[':
		n.Kind, n.Tag = yaml.SequenceNode, "!!seq"
	default:
		return nil, fmt.Errorf("unexpected %q", open.String())
	}
	for r.decoder.More() {
		// In an object keys and values are tokens alike.
		child, err := r.value(depth + 1)
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return nil, err
		}
		n.Content = append(n.Content, child)
	}
	_, _, err := r.next() // the closing delimiter
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}
