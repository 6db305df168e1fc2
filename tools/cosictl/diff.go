package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/aymanbagabas/go-udiff"
	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	"github.com/cosi-os/cosi/api/document"
	"github.com/cosi-os/cosi/api/kinds"
	"github.com/cosi-os/cosi/tools/client"
	"github.com/cosi-os/cosi/tools/internal/commandline"
)

type diffCommand struct {
	*app
	files []string
	set   string
	prune bool
}

// differs is how diff ends when there are differences: nothing is wrong, and there is nothing to say.
type differs struct{ error }

// unsure is how diff ends when it could not tell.
type unsure struct{ error }

func newDiff(a *app) *cobra.Command {
	d := &diffCommand{app: a}
	cmd := &cobra.Command{
		Use:   "diff -f FILE...",
		Short: "Show what apply would change",
		Long: `Show, as a unified diff, what "cosictl apply" of the files would change on the node. Nothing is written.

Of Sensitive kinds only the names of the fields that differ are shown. Exits with 0 when nothing would change, 1 when something would,
and 2 when that could not be told.`,
		Example: `  cosictl diff -f mount.yaml
  cosictl diff -f site/ --set site --prune`,
		Args: commandline.Arguments(0, 0),
		RunE: func(cmd *cobra.Command, args []string) error {
			err := a.withClient(d.run)(cmd, args)
			if _, ok := err.(differs); err != nil && !ok {
				return unsure{err}
			}
			return err
		},
	}
	cmd.Flags().StringArrayVarP(&d.files, "filename", "f", nil, "`file`, directory or - (repeat for more)")
	cmd.Flags().StringVar(&d.set, "set", "", "`name` of the set that the files are")
	cmd.Flags().BoolVar(&d.prune, "prune", false, "with --set: show what apply --prune would delete, too")
	return cmd
}

func (d *diffCommand) run(ctx context.Context, c *client.Client, _ []string) error {
	if d.prune && d.set == "" {
		return commandline.Usagef("--prune needs --set NAME")
	}
	items, err := d.read(ctx, d.files, c.Kind)
	if err != nil {
		return err
	}
	plan, err := d.plan(ctx, c, items, d.set, d.prune)
	if err != nil {
		return err
	}
	different := false
	for n, i := range plan.items {
		if plan.outcomes[n] == client.Unchanged {
			continue
		}
		different = true
		old, err := c.Get(ctx, i.kind, i.resource.GetMetadata().GetId())
		if err != nil && client.Code(err) != codes.NotFound {
			return err
		}
		fresh := i.resource
		if old != nil {
			fresh = client.Merge(old, fresh)
		}
		if err := d.show(i.kind, old, fresh, i.document.Source); err != nil {
			return err
		}
	}
	for _, i := range plan.pruned {
		different = true
		if err := d.show(i.kind, i.resource, nil, "pruned"); err != nil {
			return err
		}
	}
	if different {
		return differs{}
	}
	return nil
}

// show prints the difference between two resources, either of which may be nil.
func (d *diffCommand) show(k *kinds.Kind, old, fresh *resourcepb.Resource, source string) error {
	name := k.Singular() + "/" + old.GetMetadata().GetId() + fresh.GetMetadata().GetId()
	if old != nil && fresh != nil {
		name = k.Singular() + "/" + old.GetMetadata().GetId()
	}
	before, err := wanted(k, old)
	if err != nil {
		return err
	}
	after, err := wanted(k, fresh)
	if err != nil {
		return err
	}
	var text string
	if k.Sensitive() {
		text = sensitiveDiff(k, name, old, fresh)
	} else {
		text = udiff.Unified("node: "+name, source+": "+name, before, after)
	}
	for line := range strings.Lines(text) {
		if _, err := d.out.Write([]byte(d.coloured(line))); err != nil {
			return err
		}
	}
	return nil
}

func (d *diffCommand) coloured(line string) string {
	colour := ""
	switch {
	case !d.colours:
	case strings.HasPrefix(line, "---"), strings.HasPrefix(line, "+++"):
		colour = "\x1b[1m"
	case strings.HasPrefix(line, "-"):
		colour = "\x1b[31m"
	case strings.HasPrefix(line, "+"):
		colour = "\x1b[32m"
	case strings.HasPrefix(line, "@@"):
		colour = "\x1b[36m"
	}
	if colour == "" {
		return line
	}
	return colour + strings.TrimSuffix(line, "\n") + "\x1b[0m\n"
}

// wanted is what a resource says of itself that people write, as YAML: type, id, labels, annotations but the node's own, and the content.
func wanted(k *kinds.Kind, r *resourcepb.Resource) (string, error) {
	if r == nil {
		return "", nil
	}
	n, err := document.Node(desired(r), k)
	if err != nil {
		return "", err
	}
	text, err := document.YAML(n)
	return string(text), err
}

// desired is r with nothing but what people write.
func desired(r *resourcepb.Resource) *resourcepb.Resource {
	m := r.GetMetadata()
	annotations := maps.Clone(m.GetAnnotations())
	maps.DeleteFunc(annotations, func(key, _ string) bool { return strings.HasPrefix(key, "cosi.dev/") })
	return &resourcepb.Resource{Spec: r.GetSpec(), Metadata: &resourcepb.Metadata{
		Type: m.GetType(), Id: m.GetId(), Labels: m.GetLabels(), Annotations: annotations,
	}}
}

// sensitiveDiff names the fields that differ.
func sensitiveDiff(k *kinds.Kind, name string, old, fresh *resourcepb.Resource) string {
	switch {
	case old == nil:
		return fmt.Sprintf("+++ %s (sensitive: created)\n", name)
	case fresh == nil:
		return fmt.Sprintf("--- %s (sensitive: deleted)\n", name)
	}
	var fields []string
	before, err := k.Unmarshal(old.GetSpec().GetProtoSpec())
	if err == nil {
		var after protoreflect.Message
		if after, err = k.Unmarshal(fresh.GetSpec().GetProtoSpec()); err == nil {
			fields = differentFields(before, after)
		}
	}
	if !maps.Equal(old.GetMetadata().GetLabels(), fresh.GetMetadata().GetLabels()) {
		fields = append(fields, "metadata.labels")
	}
	if !maps.Equal(old.GetMetadata().GetAnnotations(), fresh.GetMetadata().GetAnnotations()) {
		fields = append(fields, "metadata.annotations")
	}
	return fmt.Sprintf("--- %s (sensitive)\n+++ %s: %s\n", name, name, strings.Join(fields, ", "))
}

func differentFields(a, b protoreflect.Message) []string {
	var names []string
	for i := range a.Descriptor().Fields().Len() {
		field := a.Descriptor().Fields().Get(i)
		left, right := a.New(), a.New()
		if a.Has(field) {
			left.Set(field, a.Get(field))
		}
		if b.Has(field) {
			right.Set(field, b.Get(field))
		}
		if !proto.Equal(left.Interface(), right.Interface()) {
			names = append(names, "spec."+string(field.Name()))
		}
	}
	slices.Sort(names)
	return names
}
