package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"

	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	"github.com/cosi-os/cosi/api/kinds"
	"github.com/cosi-os/cosi/tools/client"
	"github.com/cosi-os/cosi/tools/internal/commandline"
)

func newExport(a *app) *cobra.Command {
	var secrets bool
	cmd := &cobra.Command{
		Use:   "export",
		Short: "Write all that people want of the node as one file",
		Long: `Write what people want of the node, its desired state, as one file: user data for a fresh node, or input for "cosictl apply".

It has the definitions of kinds that people brought and everything in the namespace config that no plugin owns, always in the same order: a fresh
node that was given the file exports the same bytes. Sensitive kinds, among them the certificates that the node serves with, are left out
unless --include-secrets is there; then keep the file like the keys in it.`,
		Example: `  cosictl export > user-data.yaml
  cosictl export --include-secrets | age -r … > node.yaml.age`,
		Args: commandline.Arguments(0, 0),
		RunE: a.withClient(func(ctx context.Context, c *client.Client, _ []string) error {
			return export(ctx, a.out, c, secrets)
		}),
	}
	cmd.Flags().BoolVar(&secrets, "include-secrets", false, "write Sensitive kinds, too")
	return cmd
}

func export(ctx context.Context, out io.Writer, c *client.Client, secrets bool) error {
	set, err := c.Kinds(ctx)
	if err != nil {
		return err
	}
	exported := []*kinds.Kind{set.ByType(definitionType)} // the others may be of kinds that they define
	for _, k := range set.All() {
		if k.Namespace() == namespaceConfig {
			exported = append(exported, k)
		}
	}
	first := true
	write := func(text string) error {
		if !first {
			text = "---\n" + text
		}
		first = false
		_, err := io.WriteString(out, text)
		return err
	}
	for _, k := range exported {
		if k == nil {
			continue // an older node does not say
		}
		if k.Sensitive() && !secrets {
			if err := write(fmt.Sprintf("# %s are sensitive and left out.\n", k.Type())); err != nil {
				return err
			}
			continue
		}
		all, err := c.List(ctx, k)
		if client.Code(err) == codes.PermissionDenied {
			return fmt.Errorf("%s: %w", k.Type(), err)
		}
		if err != nil {
			return err
		}
		for _, r := range all {
			if !peoples(r) {
				continue
			}
			text, err := wanted(k, r)
			if err != nil {
				return err
			}
			if err := write(text); err != nil {
				return err
			}
		}
	}
	return nil
}

// peoples reports whether r is what people want, and not on its way out.
func peoples(r *resourcepb.Resource) bool {
	return r.GetMetadata().GetOwner() == "" && r.GetMetadata().GetPhase() == "running"
}
