package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	"github.com/cosi-os/cosi/api/declaration"
	"github.com/cosi-os/cosi/api/document"
)

func pluginCommand(out io.Writer) *cobra.Command {
	var file, inputs, format string
	c := pluginChecker{out: out}
	cmd := &cobra.Command{
		Use:   "plugin PROGRAM --declaration plugin.json",
		Short: "Check whether a plugin behaves as a node expects",
		Long: `Run a plugin with a runtime of its own and check what a node relies on: that it registers and becomes ready, calls nothing that its declaration
does not have, answers each input with a status of its version, changes nothing when it is asked again, comes to the same after it was killed,
lets go of what is torn down, and drains in time.

The plugin runs as you, without the confinement of a node, and does what its inputs say. --inputs is a file with documents of its input kinds;
without any, only what needs none is checked. The definitions of kinds of its own are read from NAME.binpb beside the declaration.`,
		Example: "  cosi-conformance plugin ./mount --declaration plugins/mount/plugin.json --inputs mounts.yaml",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if format != "text" && format != "json" {
				return fmt.Errorf("-o %s: must be text or json", format)
			}
			d, err := readDeclaration(file)
			if err != nil {
				return err
			}
			h, err := newHost(args[0], d, cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			defer h.close()
			if c.inputs, err = h.load(inputs); err != nil {
				return err
			}
			c.host, c.json = h, format == "json"
			return c.check(cmd.Context())
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&file, "declaration", "", "the plugin's plugin.json")
	flags.StringVar(&inputs, "inputs", "", "`file` with documents for the plugin to act on")
	flags.DurationVar(&c.patience, "timeout", 30*time.Second, "how long the plugin may take for each step")
	flags.DurationVar(&c.quiet, "quiet", 2*time.Second, "how long to look whether it changes something without a reason")
	flags.StringVarP(&format, "output", "o", "text", "`format`: text, json")
	_ = cmd.MarkFlagRequired("declaration") // fails only for an unknown flag
	return cmd
}

func readDeclaration(file string) (*declaration.Declaration, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	d, err := declaration.Parse(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return d, d.LoadDefinitions(filepath.Dir(file))
}

// load reads the inputs: resources of kinds that the declaration names.
func (h *host) load(file string) ([]*resourcepb.Resource, error) {
	if file == "" {
		return nil, nil
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	documents, problems := document.Parse(filepath.Base(file), data)
	var all []*resourcepb.Resource
	for _, d := range documents {
		r, wrong := d.Resolve(h.kinds)
		problems = append(problems, wrong...)
		if len(wrong) == 0 && !h.declaration.Reads(r.GetMetadata().GetType()) {
			problems = append(problems, document.Problem{Source: d.Source, Line: d.Line, Message: r.GetMetadata().GetType() + " is no input of the declaration"})
		}
		all = append(all, r)
	}
	var wrong []error
	for _, p := range problems {
		wrong = append(wrong, errors.New(p.String()))
	}
	return all, errors.Join(wrong...)
}
