package main

import (
	"bytes"
	"encoding/json"
	"io"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v4"
)

// formats of what a command prints.
var formats = []string{"table", "json", "yaml"}

// show prints v in a format: as a table it is what table returns.
func show(out io.Writer, format string, v any, table func() string) error {
	if format == "table" {
		_, err := io.WriteString(out, table())
		return err
	}
	var data bytes.Buffer
	encoder := json.NewEncoder(&data)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(v); err != nil {
		return err
	}
	text := data.Bytes()
	if format == "yaml" {
		var err error
		if text, err = asYAML(text); err != nil {
			return err
		}
	}
	_, err := out.Write(text)
	return err
}

// asYAML makes YAML of JSON, with the fields in their order.
func asYAML(data []byte) ([]byte, error) {
	document := yaml.Node{}
	if err := yaml.Load(data, &document); err != nil {
		return nil, err
	}
	plain(&document)
	return yaml.Dump(&document, yaml.WithIndent(2))
}

// plain takes the style of JSON from a node and what is in it.
func plain(n *yaml.Node) {
	n.Style = 0
	for _, child := range n.Content {
		plain(child)
	}
}

// completeFiles offers the files with some extensions, for at most so many arguments.
func completeFiles(most int, extensions ...string) func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if len(args) >= most {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return extensions, cobra.ShellCompDirectiveFilterFileExt
	}
}
