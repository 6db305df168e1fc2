package main

import (
	"github.com/spf13/cobra"

	"github.com/cosi-os/cosi/images/build"
	"github.com/cosi-os/cosi/tools/internal/commandline"
)

func verifyCommand() *cobra.Command {
	var format string
	o := build.Options{}
	cmd := &cobra.Command{
		Use:   "verify IMAGE|MANIFEST",
		Short: "Build an image again, by the manifest in it, and compare",
		Long: `Builds an image again and compares: the whole file by its SHA-256 and, if that differs, each part. The manifest in the image says of what it was
made. The sources are those of the tree here, if they are the same, or the commit that the image names, which is taken from the
repository here and built by its own builder. A definition that lies outside of the tree is in neither: --definition names it. Of a manifest beside outputs, all of these are compared. A signed image takes no private key: its
signatures are put on what is built again, each where it is one.

Ends with 1 if something is not equal, and with 2 if that cannot be known, as when the sources are not here.
` + environment,
		Example: `  cosi-image verify build/cosi-base-amd64.qcow2
  cosi-image verify --tree ~/cosi build/cosi-base-amd64.manifest.json
  cosi-image verify --tree ~/cosi --definition mine.yaml build/cosi-mine-amd64.raw`,
		Args:              commandline.Arguments(1, 1),
		ValidArgsFunction: completeFiles(1, append([]string{"manifest.json"}, imageFiles...)...),
		RunE: func(cmd *cobra.Command, args []string) error {
			progress := newProgress(cmd.ErrOrStderr())
			defer progress.stop()
			o, err := complete(o, ".", progress)
			if err != nil {
				return undecidedError{err}
			}
			v, err := build.Verify(cmd.Context(), o, args[0])
			progress.stop()
			if err == nil {
				err = show(cmd.OutOrStdout(), format, v, v.String)
			}
			if err != nil {
				return undecidedError{err}
			}
			if !v.Equal() {
				return unequalError{}
			}
			return nil
		},
	}
	addTree(cmd, &o.Tree, treeHere)
	cmd.Flags().StringVar(&o.Definition, "definition", "", "the definition, a `file`, of an image whose definition lies in no source tree")
	commandline.AddOutput(cmd, &format, formats...)
	return cmd
}
