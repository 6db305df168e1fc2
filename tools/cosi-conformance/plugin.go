package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	"github.com/cosi-os/cosi/api/declaration"
	"github.com/cosi-os/cosi/api/document"
	"github.com/cosi-os/cosi/engine/runtime/state"
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
without any, only what needs none is checked.`,
		Example: "  cosi-conformance plugin ./mount --declaration plugins/mount/plugin.json --inputs mounts.yaml",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if format != "text" && format != "json" {
				return fmt.Errorf("-o %s: must be text or json", format)
			}
			data, err := os.ReadFile(file)
			if err != nil {
				return err
			}
			d, err := declaration.Parse(data)
			if err != nil {
				return fmt.Errorf("%s: %w", file, err)
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

// pluginChecker checks one plugin: each step builds on those before.
type pluginChecker struct {
	out             io.Writer
	host            *host
	inputs          []*resourcepb.Resource
	patience, quiet time.Duration
	json            bool
}

// kills is how often the plugin is killed at a random moment.
const kills = 3

func (c *pluginChecker) check(ctx context.Context) error {
	steps := []struct {
		name  string
		needs bool // inputs
		run   func(context.Context) error
	}{
		{"It registers as declared and becomes ready", false, c.starts},
		{"It answers every input with a status of its version", true, c.answers},
		{"It writes nothing when nothing changes", false, c.rests},
		{"It changes nothing when a runtime that restarted asks again", false, c.reconnects},
		{"Killed at any moment, it comes back to the same", false, c.survives},
		{"It lets go of what is torn down and removes its status", true, c.letsGo},
		{"It drains in time and ends with 0", false, c.drains},
		{"It calls nothing that its declaration does not have", false, c.calls},
	}
	count := map[string]int{}
	p := checker{out: c.out, json: c.json}
	for _, step := range steps {
		f := finding{Rule: step.name, Outcome: kept}
		if step.needs && len(c.inputs) == 0 {
			f.Outcome, f.Why = unchecked, "--inputs has no document"
		} else if err := step.run(ctx); err != nil {
			f.Outcome, f.Wrong = broken, []string{err.Error()}
		}
		count[f.Outcome]++
		if err := p.print(f); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if f.Outcome == broken && c.host.plugin == nil {
			break // it does not run: there is nothing more to see
		}
	}
	if !c.json {
		fmt.Fprintf(c.out, "%d rules kept, %d broken, %d not checked\n", count[kept], count[broken], count[unchecked])
	}
	if count[broken] > 0 {
		return errBroken
	}
	return nil
}

// until waits until is returns nil, and returns its last error otherwise.
func (c *pluginChecker) until(ctx context.Context, is func() error) error {
	var last error
	for end := time.Now().Add(c.patience); ; time.Sleep(10 * time.Millisecond) {
		if last = is(); last == nil {
			return nil
		}
		if time.Now().After(end) || ctx.Err() != nil {
			return fmt.Errorf("after %v: %w", c.patience, last)
		}
	}
}

func (c *pluginChecker) starts(ctx context.Context) error {
	if err := c.host.startPlugin(); err != nil {
		return err
	}
	if err := c.until(ctx, c.host.ready); err != nil {
		c.host.killPlugin()
		return err
	}
	return nil
}

func (c *pluginChecker) answers(ctx context.Context) error {
	for _, r := range c.inputs {
		if err := c.host.apply(ctx, r); err != nil {
			return err
		}
	}
	return c.until(ctx, func() error { return c.host.answered(ctx, c.inputs) })
}

// rests compares the outputs now with those after a while.
func (c *pluginChecker) rests(ctx context.Context) error {
	before, err := c.host.outputs(ctx, true)
	if err != nil {
		return err
	}
	select {
	case <-time.After(c.quiet):
	case <-ctx.Done():
	}
	return c.host.same(ctx, before, true)
}

func (c *pluginChecker) reconnects(ctx context.Context) error {
	before, err := c.host.outputs(ctx, true)
	if err != nil {
		return err
	}
	c.host.stop()
	if err := c.host.start(); err != nil {
		return err
	}
	if err := c.until(ctx, c.host.ready); err != nil {
		return err
	}
	time.Sleep(c.quiet)
	return c.host.same(ctx, before, true)
}

// survives gives every input a new version and kills the plugin while it is at it. What it says then may not differ but for the version.
func (c *pluginChecker) survives(ctx context.Context) error {
	before, err := c.host.outputs(ctx, false)
	if err != nil {
		return err
	}
	for range kills {
		for _, r := range c.inputs {
			if err := c.host.apply(ctx, r); err != nil {
				return err
			}
		}
		time.Sleep(time.Duration(rand.Int64N(int64(200 * time.Millisecond))))
		c.host.killPlugin()
		if err := c.starts(ctx); err != nil {
			return err
		}
		if err := c.until(ctx, func() error { return c.host.answered(ctx, c.inputs) }); err != nil {
			return err
		}
	}
	return c.until(ctx, func() error { return c.host.same(ctx, before, false) })
}

func (c *pluginChecker) letsGo(ctx context.Context) error {
	for _, r := range c.inputs {
		if _, err := c.host.top.Teardown(ctx, state.PointerTo(r), state.WriteOptions{}); err != nil {
			return err
		}
	}
	return c.until(ctx, func() error {
		for _, r := range c.inputs {
			if err := c.host.gone(ctx, r); err != nil {
				return err
			}
		}
		return nil
	})
}

func (c *pluginChecker) drains(ctx context.Context) error {
	if late := c.host.table.Drain(ctx, "conformance", time.Now().Add(c.patience), func(string) {}); len(late) > 0 {
		c.host.killPlugin()
		return fmt.Errorf("it has not said that it has drained within %v", c.patience/2)
	}
	code, err := c.host.waitPlugin(c.patience)
	if err != nil {
		return err
	}
	if code != 0 {
		return errors.New("it ends with " + strconv.Itoa(code))
	}
	return nil
}

func (c *pluginChecker) calls(context.Context) error { return c.host.refusals() }
