package document

import (
	"bytes"
	"encoding/json"
	"strings"

	"go.yaml.in/yaml/v4"

	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	"github.com/cosi-os/cosi/api/kinds"
)

// Node returns r as a document: {metadata, spec}. Without a kind the content is the YAML that the node sent.
func Node(r *resourcepb.Resource, k *kinds.Kind) (*yaml.Node, error) {
	metadata, err := kinds.EncodeNode(r.GetMetadata().ProtoReflect())
	if err != nil {
		return nil, err
	}
	spec, err := specNode(r.GetSpec(), k)
	if err != nil {
		return nil, err
	}
	return &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map", Content: []*yaml.Node{text("metadata"), metadata, text("spec"), spec}}, nil
}

func specNode(s *resourcepb.Spec, k *kinds.Kind) (*yaml.Node, error) {
	if k != nil {
		m, err := k.Unmarshal(s.GetProtoSpec())
		if err != nil {
			return nil, err
		}
		return kinds.EncodeNode(m)
	}
	n, problem := kinds.ParseNode([]byte(s.GetYamlSpec()))
	if problem != nil || n == nil {
		return text(s.GetYamlSpec()), nil
	}
	return n, nil
}

func text(s string) *yaml.Node { return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: s} }

// YAML returns documents one after the other, with --- between them.
func YAML(documents ...*yaml.Node) ([]byte, error) {
	var b bytes.Buffer
	for i, n := range documents {
		if i > 0 {
			b.WriteString("---\n")
		}
		data, err := yaml.Dump(n, yaml.WithIndent(2))
		if err != nil {
			return nil, err
		}
		b.Write(data)
	}
	return b.Bytes(), nil
}

// JSON returns n on one line, its fields in their order. Aliases are not followed: no node of this package has any.
func JSON(n *yaml.Node) []byte {
	var b bytes.Buffer
	appendJSON(&b, n)
	return b.Bytes()
}

func appendJSON(b *bytes.Buffer, n *yaml.Node) {
	switch n.Kind {
	case yaml.MappingNode:
		b.WriteByte('{')
		for i := 0; i+1 < len(n.Content); i += 2 {
			if i > 0 {
				b.WriteByte(',')
			}
			appendString(b, n.Content[i].Value)
			b.WriteByte(':')
			appendJSON(b, n.Content[i+1])
		}
		b.WriteByte('}')
	case yaml.SequenceNode:
		b.WriteByte('[')
		for i, item := range n.Content {
			if i > 0 {
				b.WriteByte(',')
			}
			appendJSON(b, item)
		}
		b.WriteByte(']')
	default:
		appendScalar(b, n)
	}
}

func appendScalar(b *bytes.Buffer, n *yaml.Node) {
	switch tag := n.ShortTag(); {
	case tag == "!!null":
		b.WriteString("null")
	case (tag == "!!bool" || tag == "!!int" || tag == "!!float") && json.Valid([]byte(n.Value)):
		b.WriteString(n.Value)
	default:
		appendString(b, n.Value)
	}
}

func appendString(b *bytes.Buffer, s string) {
	var quoted strings.Builder
	encoder := json.NewEncoder(&quoted)
	encoder.SetEscapeHTML(false)
	_ = encoder.Encode(s) // a string can always be encoded
	b.WriteString(strings.TrimSuffix(quoted.String(), "\n"))
}
