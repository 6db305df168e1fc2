package main

import (
	"fmt"
	"strings"

	"buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate"
	"go.yaml.in/yaml/v4"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/cosi-os/cosi/api/document"
	"github.com/cosi-os/cosi/api/kinds"
)

// describeRules says in one line what the rules of a field are: "string.min_len: 1".
func describeRules(field protoreflect.FieldDescriptor) string {
	set, ok := proto.GetExtension(field.Options(), validate.E_Field).(*validate.FieldRules)
	if !ok || set == nil {
		return ""
	}
	n, err := kinds.EncodeNode(set.ProtoReflect())
	if err != nil {
		return ""
	}
	var lines []string
	flatten(&lines, "", n)
	return strings.Join(lines, ", ")
}

// flatten writes nested rules as paths. The name of the type adds nothing to a type that stands beside it.
func flatten(lines *[]string, prefix string, n *yaml.Node) {
	if n.Kind != yaml.MappingNode {
		value := n.Value
		if n.Kind != yaml.ScalarNode {
			value = string(document.JSON(n))
		}
		*lines = append(*lines, fmt.Sprintf("%s: %s", prefix, value))
		return
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		name := n.Content[i].Value
		switch name {
		case "string", "repeated", "bool", "enum", "uint32", "uint64", "int32", "int64", "bytes", "map", "double", "float":
			name = prefix
		default:
			name = strings.Trim(prefix+"."+name, ".")
		}
		flatten(lines, name, n.Content[i+1])
	}
}
