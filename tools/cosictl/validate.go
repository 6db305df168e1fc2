package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/cosi-os/cosi/api/kinds"
	"github.com/cosi-os/cosi/api/kinds/builtin"
)

func newValidate(a *app) *cobra.Command {
	var files []string
	cmd := &cobra.Command{
		Use:   "validate -f FILE...",
		Short: "Check files without a node",
		Long: `Check documents against the kinds that this program was built with, and their rules. No node is asked.

Each problem is printed with its file, line and field.`,
		Example: "  cosictl validate -f user-data.yaml -f mounts/",
		Args:    arguments(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			set := builtin.Set()
			items, err := a.read(cmd.Context(), files, func(_ context.Context, name string) (*kinds.Kind, error) { return set.Lookup(name) })
			if err != nil {
				return err
			}
			fmt.Fprintf(a.out, "%s valid\n", plural(len(items), "resource"))
			return nil
		},
	}
	cmd.Flags().StringArrayVarP(&files, "filename", "f", nil, "`file`, directory or - (repeat for more)")
	return cmd
}
