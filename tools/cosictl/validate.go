package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/cosi-os/cosi/api/kinds"
	"github.com/cosi-os/cosi/api/kinds/builtin"
	"github.com/cosi-os/cosi/images/inspect"
	"github.com/cosi-os/cosi/tools/internal/commandline"
)

func newValidate(a *app) *cobra.Command {
	var files []string
	var image string
	cmd := &cobra.Command{
		Use:   "validate -f FILE...",
		Short: "Check files without a node",
		Long: `Check documents against the kinds that this program was built with, or those of an image, and their rules. No node is asked.

Each problem is printed with its file, line and field.`,
		Example: `  cosictl validate -f user-data.yaml -f mounts/
  cosictl validate -f user-data.yaml --image build/cosi-base-amd64.raw`,
		Args: commandline.Arguments(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			set, err := offlineKinds(image)
			if err != nil {
				return err
			}
			items, err := a.read(cmd.Context(), files, func(_ context.Context, name string) (*kinds.Kind, error) { return set.Lookup(name) })
			if err != nil {
				return err
			}
			fmt.Fprintf(a.out, "%s valid\n", plural(len(items), "resource"))
			return nil
		},
	}
	cmd.Flags().StringArrayVarP(&files, "filename", "f", nil, "`file`, directory or - (repeat for more)")
	addImage(cmd, &image)
	return cmd
}

// addImage gives a command the flag --image.
func addImage(cmd *cobra.Command, image *string) {
	cmd.Flags().StringVar(image, "image", "", "take the kinds of this image: a disk, ISO, .efi or .initramfs `file`, or one for a cloud")
}

// offlineKinds are those of an image, or those that this program was built with.
func offlineKinds(image string) (*kinds.Set, error) {
	if image == "" {
		return builtin.Set(), nil
	}
	return inspect.Kinds(image)
}
