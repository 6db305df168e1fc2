package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	"github.com/cosi-os/cosi/api/declaration"
	"github.com/cosi-os/cosi/api/document"
	"github.com/cosi-os/cosi/tools/internal/commandline"
)

func pluginCommand(out io.Writer) *cobra.Command {
	var file, inputs, format string
	c := pluginChecker{out: out}
	cmd := &cobra.Command{
		Use:   "plugin PROGRAM",
		Short: "Check whether a plugin behaves as a node expects",
		Long: `Run a plugin with a runtime of its own and check what a node relies on: that it registers and becomes ready, calls nothing that its declaration
does not have, answers each input with a status of its version, changes nothing when it is asked again, comes to the same after it was killed (but for times and events),
lets go of what is torn down, and drains in time.

The plugin runs as you, without the confinement of a node, and does what its inputs say. --inputs is a file with documents of its input kinds;
without any, only what needs none is checked.

What the plugin is and may do it says itself when it is called with --declaration, as every one does that the SDK's Main starts. For another,
--declaration names the file. The definitions of kinds of its own are read from NAME.binpb beside the program, or beside that file.`,
		Example: `  cosi-conformance plugin ./mount --inputs mounts.yaml
  cosi-conformance plugin ./in-rust --declaration plugin.json`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			d, err := readDeclaration(cmd.Context(), args[0], file)
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
	flags.StringVar(&file, "declaration", "", "`file` with the plugin's declaration (default: what PROGRAM --declaration prints)")
	flags.StringVar(&inputs, "inputs", "", "`file` with documents for the plugin to act on")
	flags.DurationVar(&c.patience, "timeout", 30*time.Second, "how long the plugin may take for each step")
	flags.DurationVar(&c.quiet, "quiet", 2*time.Second, "how long to look whether it changes something without a reason")
	commandline.AddOutput(cmd, &format, "text", "json")
	return cmd
}

// readDeclaration reads the declaration from a file, or has the program say it.
func readDeclaration(ctx context.Context, program, file string) (*declaration.Declaration, error) {
	data, source, dir := []byte(nil), file, filepath.Dir(file)
	var err error
	if file != "" {
		data, err = os.ReadFile(file)
	} else {
		source, dir = program+" --declaration", filepath.Dir(program)
		data, err = declared(ctx, program)
	}
	if err != nil {
		return nil, err
	}
	d, err := declaration.Parse(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", source, err)
	}
	return d, d.LoadDefinitions(dir)
}

// answerTime is how long a program may take to say what it is: one that does not know the flag may run as a plugin instead.
const answerTime = 10 * time.Second

// declared is what a program prints that is asked for its declaration.
func declared(ctx context.Context, program string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	var said bytes.Buffer
	cmd := exec.CommandContext(ctx, program, "--declaration")
	cmd.Stderr, cmd.WaitDelay = &said, time.Second
	data, err := cmd.Output()
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	if err != nil {
		return nil, fmt.Errorf("%s --declaration: %w: give the declaration as a file (--declaration FILE)\n%s", program, err, said.Bytes())
	}
	return data, nil
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
