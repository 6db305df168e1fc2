package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"

	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	"github.com/cosi-os/cosi/api/kinds"
	"github.com/cosi-os/cosi/tools/client"
	"github.com/cosi-os/cosi/tools/internal/commandline"
)

func newDescribe(a *app) *cobra.Command {
	return &cobra.Command{
		Use:               "describe KIND ID",
		Short:             "Show one resource and how far it has converged",
		Example:           "  cosictl describe mount data\n  cosictl describe mountpoint/data",
		Args:              commandline.Arguments(1, 2),
		ValidArgsFunction: a.completeKindAndID,
		RunE: a.withClient(func(ctx context.Context, c *client.Client, args []string) error {
			if args = splitID(args); len(args) != 2 {
				return commandline.Usagef("describe KIND ID ('cosictl explain %s' describes the kind)", args[0])
			}
			k, err := c.Kind(ctx, args[0])
			if err != nil {
				return err
			}
			r, err := c.Get(ctx, k, args[1])
			if err != nil {
				return err
			}
			if err := describe(a.out, k, r, a.now()); err != nil {
				return err
			}
			return describeStatus(ctx, a, c, k, r)
		}),
	}
}

func describe(out io.Writer, k *kinds.Kind, r *resourcepb.Resource, now time.Time) error {
	m := r.GetMetadata()
	line := func(name, value string) {
		if value != "" {
			fmt.Fprintf(out, "%-13s%s\n", name+":", oneLine(value))
		}
	}
	line("Kind", k.Definition.GetDisplayType()+" ("+k.Type()+")")
	line("ID", m.GetId())
	line("Namespace", m.GetNamespace())
	line("Version", m.GetVersion()+", "+m.GetPhase())
	line("Owner", m.GetOwner())
	if t := m.GetCreated(); t != nil {
		line("Created", t.AsTime().UTC().Format(time.RFC3339)+" ("+shortDuration(now.Sub(t.AsTime()))+" ago)")
	}
	if t := m.GetUpdated(); t != nil && m.GetVersion() != "1" {
		line("Updated", t.AsTime().UTC().Format(time.RFC3339)+" ("+shortDuration(now.Sub(t.AsTime()))+" ago)")
	}
	line("Held by", strings.Join(m.GetFinalizers(), ", "))
	pairs(out, "Labels", m.GetLabels())
	pairs(out, "Annotations", m.GetAnnotations())
	return content(out, "Spec", k, r)
}

func pairs(out io.Writer, title string, m map[string]string) {
	if len(m) == 0 {
		return
	}
	fmt.Fprintf(out, "%s:\n", title)
	for _, key := range slices.Sorted(maps.Keys(m)) {
		fmt.Fprintf(out, "  %s: %s\n", oneLine(key), oneLine(m[key]))
	}
}

// content shows what a resource says; of a Sensitive kind, which fields say something: what is described is shown to others.
func content(out io.Writer, title string, k *kinds.Kind, r *resourcepb.Resource) error {
	if k.Sensitive() {
		m, err := k.Unmarshal(r.GetSpec().GetProtoSpec())
		if err != nil {
			return err
		}
		fmt.Fprintf(out, "%s: sensitive, with %s ('cosictl get %s/%s -o yaml' shows it)\n",
			title, cmp.Or(strings.Join(differentFields(m, m.New()), ", "), "nothing"), k.Singular(), r.GetMetadata().GetId())
		return nil
	}
	text, err := k.Encode(r.GetSpec().GetProtoSpec())
	if err != nil {
		return err
	}
	if text == "{}\n" {
		fmt.Fprintf(out, "%s: empty\n", title)
		return nil
	}
	fmt.Fprintf(out, "%s:\n", title)
	for line := range strings.Lines(text) {
		fmt.Fprintf(out, "  %s", line)
	}
	return nil
}

// describeStatus shows the observed resource of the same id, if the kind has an observed kind.
func describeStatus(ctx context.Context, a *app, c *client.Client, k *kinds.Kind, r *resourcepb.Resource) error {
	observedType := k.Definition.GetObservedType()
	if observedType == "" {
		return nil
	}
	observed, err := c.Kind(ctx, observedType)
	if err != nil {
		return err
	}
	status, err := c.Get(ctx, observed, r.GetMetadata().GetId())
	if client.Code(err) == codes.NotFound {
		fmt.Fprintln(a.out, "Status: none yet")
		return nil
	}
	if err != nil {
		return err
	}
	converged, err := client.ReadConvergence(observed, status)
	if err != nil {
		return err
	}
	return content(a.out, "Status, "+verdict(converged, r.GetMetadata().GetVersion()), observed, status)
}

func verdict(c client.Convergence, version string) string {
	switch {
	case c.ObservedVersion != version:
		return fmt.Sprintf("of version %s, not yet of %s", c.ObservedVersion, version)
	case c.Ready:
		return "ready"
	}
	return "not ready"
}
