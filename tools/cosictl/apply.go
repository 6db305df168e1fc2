package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"

	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	"github.com/cosi-os/cosi/tools/client"
	"github.com/cosi-os/cosi/tools/internal/commandline"
)

type applyCommand struct {
	*app
	files   []string
	wait    bool
	dryRun  bool
	set     string
	prune   bool
	timeout time.Duration
}

func newApply(a *app) *cobra.Command {
	p := &applyCommand{app: a}
	cmd := &cobra.Command{
		Use:   "apply -f FILE...",
		Short: "Make resources what files say",
		Long: `Create the resources that files describe, or update them where they differ.

A file holds documents of {metadata, spec} in YAML, JSON or TOML; a directory stands for all such files in it, - for the standard input.
All documents are checked before the first is written, here and by the node: with one wrong, none is. Definitions of kinds are written first,
and the other files may use these kinds; their contents are checked here alone, by the definitions in the files. What no check foresees, a
disk that is full by then, a write by somebody else in between, more resources of one kind than the node takes, may end an apply half-way: it
says how far it came, and goes on from there when it is run again.

--wait waits until each is not only written but so, and exits with 3 if that has not come within --timeout.

--set NAME marks what is written as a part of that set (with the label cosi.dev/set), and --prune deletes what is marked so and no longer in
the files. What user data, plugins or other sets have written is never pruned.`,
		Example: `  cosictl apply -f mount.yaml
  cosictl apply -f mount.yaml --wait --timeout 30s
  cosictl apply -f site/ --set site --prune
  cosictl get mount/data -o yaml | sed s/ext4/xfs/ | cosictl apply -f - --dry-run`,
		Args: commandline.Arguments(0, 0),
		RunE: a.withClient(p.run),
	}
	flags := cmd.Flags()
	flags.StringArrayVarP(&p.files, "filename", "f", nil, "`file`, directory or - (repeat for more)")
	flags.BoolVarP(&p.wait, "wait", "w", false, "wait until the resources have converged")
	flags.BoolVar(&p.dryRun, "dry-run", false, "let the node check everything and write nothing")
	flags.StringVar(&p.set, "set", "", "`name` of the set that the files are")
	flags.BoolVar(&p.prune, "prune", false, "with --set: delete what the set no longer has")
	flags.DurationVar(&p.timeout, "timeout", time.Minute, "how long to wait, for all together")
	return cmd
}

func (p *applyCommand) run(ctx context.Context, c *client.Client, _ []string) error {
	if p.wait && p.dryRun {
		return commandline.Usagef("--wait and --dry-run exclude each other: nothing is written that could converge")
	}
	if p.prune && p.set == "" {
		return commandline.Usagef("--prune needs --set NAME: what is not in the files may be somebody else's")
	}
	items, err := p.read(ctx, p.files, c.Kind)
	if err != nil {
		return err
	}
	plan, err := p.plan(ctx, c, items, p.set, p.prune)
	if err != nil {
		return err
	}
	if p.dryRun {
		plan.show(p.app, " (dry run)")
		return nil
	}
	return p.carryOut(ctx, c, plan)
}

// carryOut writes what was checked. Whatever goes wrong now, the same command can be run again: what is done is left alone then.
func (p *applyCommand) carryOut(ctx context.Context, c *client.Client, plan *plan) error {
	versions := map[*item]string{}
	for n, i := range plan.items {
		outcome, r, err := c.Apply(ctx, i.kind, i.resource)
		if err != nil {
			return fmt.Errorf("%s: %w%s", i, p.place(i, err), far(n, len(plan.items)))
		}
		versions[i] = r.GetMetadata().GetVersion()
		fmt.Fprintf(p.out, "%s %s\n", i, outcome)
	}
	waiting, cancel := context.WithTimeout(ctx, p.timeout)
	defer cancel()
	d := &deleteCommand{app: p.app, missing: true}
	for _, gone := range plan.pruned {
		if err := d.delete(waiting, c, gone.kind, gone.resource.GetMetadata().GetId()); err != nil {
			return fmt.Errorf("prune: %w", err)
		}
	}
	if !p.wait {
		return nil
	}
	return p.waitFor(waiting, c, plan.items, versions)
}

// far says how far a write of many came.
func far(done, all int) string {
	if all == 1 {
		return ""
	}
	return fmt.Sprintf("\n%d of %d are written; once this is mended, apply again", done, all)
}

// place puts the line of the file before each field that the node complains about.
func (a *app) place(i *item, err error) error {
	var refused *client.Error
	if !errors.As(err, &refused) || len(refused.Fields) == 0 {
		return err
	}
	for _, field := range refused.Fields {
		fmt.Fprintf(a.err, "%s:%d: %s: %s\n", i.document.Source, i.document.FieldLine(field.Path), field.Path, field.Message)
	}
	return errors.New(refused.Message)
}

func (p *applyCommand) waitFor(ctx context.Context, c *client.Client, items []*item, versions map[*item]string) error {
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

// labelSet names the set of files that a resource was applied with.
const labelSet = "cosi.dev/set"

// provenance is the annotation of what user data or the image wrote last.
const provenance = "cosi.dev/provenance"

// plan is what an apply would do, and the node agrees with.
type plan struct {
	items    []*item
	outcomes []client.Outcome
	pruned   []*item
}

// show prints a plan.
func (p *plan) show(a *app, suffix string) {
	for n, i := range p.items {
		fmt.Fprintf(a.out, "%s %s%s\n", i, p.outcomes[n], suffix)
	}
	for _, i := range p.pruned {
		fmt.Fprintf(a.out, "%s deleted%s\n", i, suffix)
	}
}

// plan lets the node check every item without writing it. What is wrong is printed; with anything wrong there is no plan.
func (a *app) plan(ctx context.Context, c *client.Client, items []*item, set string, prune bool) (*plan, error) {
	p := &plan{items: definitionsFirst(items)}
	wrong := 0
	fresh := map[string]bool{} // kinds that the node does not know in this form yet
	for _, i := range p.items {
		if set != "" {
			i.mark(set)
		}
		outcome, err := a.check(ctx, c, i, set, fresh)
		if err != nil && len(items) == 1 {
			return nil, fmt.Errorf("%s: %w", i, a.place(i, err))
		}
		if err != nil {
			fmt.Fprintf(a.err, "%s: %v\n", i, a.place(i, err))
			wrong++
			continue
		}
		if i.defines != nil && outcome != client.Unchanged {
			fresh[i.defines.Type()] = true
		}
		p.outcomes = append(p.outcomes, outcome)
	}
	if wrong > 0 {
		return nil, fmt.Errorf("nothing is written: %s of %d cannot be", plural(wrong, "resource"), len(items))
	}
	var err error
	if prune {
		p.pruned, err = leftovers(ctx, c, p.items, set)
	}
	return p, err
}

func (a *app) check(ctx context.Context, c *client.Client, i *item, set string, fresh map[string]bool) (client.Outcome, error) {
	old, missing := c.Get(ctx, i.kind, i.resource.GetMetadata().GetId())
	if other := old.GetMetadata().GetLabels()[labelSet]; missing == nil && set != "" && other != "" && other != set {
		return "", fmt.Errorf("it belongs to the set %q: one resource, one set", other)
	}
	outcome, _, err := c.Apply(client.DryRun(ctx), i.kind, i.resource)
	if !fresh[i.kind.Type()] || client.Code(err) != codes.InvalidArgument {
		return outcome, err
	}
	// The node looks at rights and limits before it looks at the kind, which it does not know yet, or as it was. The content was checked
	// here, by the definition in the files.
	if missing == nil {
		return client.Updated, nil
	}
	return client.Created, nil
}

func (i *item) mark(set string) {
	m := i.resource.GetMetadata()
	if m.Labels == nil {
		m.Labels = map[string]string{}
	}
	m.Labels[labelSet] = set
}

// definitionsFirst keeps the order otherwise.
func definitionsFirst(items []*item) []*item {
	sorted := slices.Clone(items)
	slices.SortStableFunc(sorted, func(a, b *item) int {
		switch {
		case a.defines != nil && b.defines == nil:
			return -1
		case a.defines == nil && b.defines != nil:
			return 1
		}
		return 0
	})
	return sorted
}

// leftovers are what an earlier apply of the set wrote and the files no longer have: definitions last, since they go when nothing is left.
func leftovers(ctx context.Context, c *client.Client, items []*item, set string) ([]*item, error) {
	keep := map[string]bool{}
	for _, i := range items {
		keep[i.String()] = true
	}
	kinds, err := c.Kinds(ctx)
	if err != nil {
		return nil, err
	}
	mark := &resourcepb.LabelQuery{Terms: []*resourcepb.LabelTerm{{Key: labelSet, Op: resourcepb.LabelTerm_EQUAL, Value: []string{set}}}}
	var gone, definitions []*item
	for _, k := range kinds.All() {
		if k.Namespace() != namespaceConfig && k.Type() != definitionType {
			continue
		}
		all, err := c.List(ctx, k, mark)
		if err != nil {
			return nil, fmt.Errorf("what the set %q has of %s: %w", set, k.ShortName(), err)
		}
		for _, r := range all {
			i := &item{kind: k, resource: r}
			switch m := r.GetMetadata(); {
			case keep[i.String()], m.GetOwner() != "", m.GetAnnotations()[provenance] != "":
			case k.Type() == definitionType:
				definitions = append(definitions, i)
			default:
				gone = append(gone, i)
			}
		}
	}
	return append(gone, definitions...), nil
}
