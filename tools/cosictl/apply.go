package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/cosi-os/cosi/tools/client"
)

type applyCommand struct {
	*app
	files   []string
	wait    bool
	dryRun  bool
	timeout time.Duration
}

func newApply(a *app) *cobra.Command {
	p := &applyCommand{app: a}
	cmd := &cobra.Command{
		Use:   "apply -f FILE...",
		Short: "Make resources what files say",
		Long: `Create the resources that files describe, or update them where they differ.

A file holds documents of {metadata, spec} in YAML, JSON or TOML; a directory stands for all such files in it, - for the standard input.
All documents are checked before the first is written: with one wrong, none is. --wait waits until each is not only written but
so, and exits with 3 if that has not come within --timeout.`,
		Example: `  cosictl apply -f mount.yaml
  cosictl apply -f mount.yaml --wait --timeout 30s
  cosictl get mount/data -o yaml | sed s/ext4/xfs/ | cosictl apply -f - --dry-run`,
		Args: arguments(0, 0),
		RunE: a.withClient(p.run),
	}
	flags := cmd.Flags()
	flags.StringArrayVarP(&p.files, "filename", "f", nil, "`file`, directory or - (repeat for more)")
	flags.BoolVarP(&p.wait, "wait", "w", false, "wait until the resources have converged")
	flags.BoolVar(&p.dryRun, "dry-run", false, "let the node check everything and write nothing")
	flags.DurationVar(&p.timeout, "timeout", time.Minute, "how long to wait, for all together")
	return cmd
}

func (p *applyCommand) run(ctx context.Context, c *client.Client, _ []string) error {
	if p.wait && p.dryRun {
		return usagef("--wait and --dry-run exclude each other: nothing is written that could converge")
	}
	items, err := p.read(ctx, p.files, c.Kind)
	if err != nil {
		return err
	}
	suffix := ""
	writes := ctx
	if p.dryRun {
		writes, suffix = client.DryRun(ctx), " (dry run)"
	}
	versions := map[*item]string{}
	for _, i := range items {
		outcome, r, err := c.Apply(writes, i.kind, i.resource)
		if err != nil {
			return fmt.Errorf("%s: %w", i, p.place(i, err))
		}
		versions[i] = r.GetMetadata().GetVersion()
		fmt.Fprintf(p.out, "%s %s%s\n", i, outcome, suffix)
	}
	if !p.wait {
		return nil
	}
	return p.waitFor(ctx, c, items, versions)
}

// place puts the line of the file before each field that the node complains about.
func (p *applyCommand) place(i *item, err error) error {
	var refused *client.Error
	if !errors.As(err, &refused) || len(refused.Fields) == 0 {
		return err
	}
	for _, field := range refused.Fields {
		fmt.Fprintf(p.err, "%s:%d: %s: %s\n", i.document.Source, i.document.FieldLine(field.Path), field.Path, field.Message)
	}
	return errors.New(refused.Message)
}

func (p *applyCommand) waitFor(ctx context.Context, c *client.Client, items []*item, versions map[*item]string) error {
	ctx, cancel := context.WithTimeout(ctx, p.timeout)
	defer cancel()
	for _, i := range items {
		if i.kind.Definition.GetObservedType() == "" {
			continue
		}
		if err := c.Wait(ctx, i.kind, i.resource.GetMetadata().GetId(), versions[i]); err != nil {
			return err
		}
		fmt.Fprintf(p.out, "%s ready\n", i)
	}
	return nil
}
