package main

import (
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"

	"github.com/cosi-os/cosi/images/build"
	"github.com/cosi-os/cosi/images/inspect"
	"github.com/cosi-os/cosi/tools/internal/commandline"
)

func diffCommand() *cobra.Command {
	var format, tree string
	cmd := &cobra.Command{
		Use:   "diff A B",
		Short: "Print what is different in two images, two definitions, or one of each",
		Long: `Prints what is different in two images (files as inspect takes them), two definitions (YAML files), or an image and a definition: of these, what the
definition says, with what it extends, and the packages. Of two images also the sources, partitions and files.

Ends with 1 if there is a difference, and with 2 if they could not be compared.`,
		Example: `  cosi-image diff images/base.yaml images/test.yaml
  cosi-image diff old.raw build/cosi-base-amd64.qcow2
  cosi-image diff images/base.yaml old.raw`,
		Args:              commandline.Arguments(2, 2),
		ValidArgsFunction: completeFiles(2, append([]string{"yaml"}, imageFiles...)...),
		RunE: func(cmd *cobra.Command, args []string) error {
			var both [2]*inspect.Facts
			for i, file := range args {
				var err error
				if both[i], err = facts(tree, file); err != nil {
					return undecidedError{err}
				}
			}
			all := inspect.Compare(both[0], both[1])
			if err := show(cmd.OutOrStdout(), format, all, func() string { return inspect.Table(args[0], args[1], all) }); err != nil {
				return undecidedError{err}
			}
			if len(all) > 0 {
				return unequalError{}
			}
			return nil
		},
	}
	addTree(cmd, &tree, treeOfDefinition)
	commandline.AddOutput(cmd, &format, formats...)
	return cmd
}

// facts are those of an image or a definition; tree is the one that the user names.
func facts(tree, file string) (*inspect.Facts, error) {
	if slices.Contains([]string{".yaml", ".yml"}, filepath.Ext(file)) {
		tree, err := sourceTree(tree, file)
		if err != nil {
			return nil, err
		}
		return build.Facts(build.Options{Tree: tree}, file)
	}
	image, err := inspect.Open(file)
	if err != nil {
		return nil, err
	}
	defer image.Close()
	return image.Facts()
}
