package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"

	"go.yaml.in/yaml/v4"

	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	"github.com/cosi-os/cosi/api/document"
	"github.com/cosi-os/cosi/api/kinds"
)

// writeYAML prints resources as documents that can be applied again.
func writeYAML(out io.Writer, k *kinds.Kind, resources ...*resourcepb.Resource) error {
	var documents []*yaml.Node
	for _, r := range resources {
		n, err := document.Node(r, k)
		if err != nil {
			return err
		}
		documents = append(documents, n)
	}
	text, err := document.YAML(documents...)
	if err != nil {
		return err
	}
	_, err = out.Write(text)
	return err
}

// writeJSON prints one resource as an object, or a list as an array.
func writeJSON(out io.Writer, k *kinds.Kind, list bool, resources ...*resourcepb.Resource) error {
	all := &yaml.Node{Kind: yaml.SequenceNode}
	for _, r := range resources {
		n, err := document.Node(r, k)
		if err != nil {
			return err
		}
		all.Content = append(all.Content, n)
	}
	n := all
	if !list {
		n = all.Content[0]
	}
	var b bytes.Buffer
	if err := json.Indent(&b, document.JSON(n), "", "  "); err != nil {
		return err
	}
	_, err := fmt.Fprintln(out, b.String())
	return err
}

// writeLine prints a resource as JSON on one line.
func writeLine(out io.Writer, k *kinds.Kind, r *resourcepb.Resource) error {
	n, err := document.Node(r, k)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(out, string(document.JSON(n)))
	return err
}
