package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v4"

	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	"github.com/cosi-os/cosi/api/document"
	"github.com/cosi-os/cosi/api/kinds"
)

// addOutput gives a command the flag -o with formats, the first being the default.
func addOutput(cmd *cobra.Command, format *string, formats ...string) {
	cmd.Flags().StringVarP(format, "output", "o", formats[0], "`format`: "+strings.Join(formats, ", "))
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(formats, cobra.ShellCompDirectiveNoFileComp)) // fails only for an unknown flag
	check := cmd.PreRunE
	cmd.PreRunE = func(cmd *cobra.Command, args []string) error {
		if !slices.Contains(formats, *format) {
			return usagef("-o %s: must be one of %s", *format, strings.Join(formats, ", "))
		}
		if check != nil {
			return check(cmd, args)
		}
		return nil
	}
}

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
