package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/cosi-os/cosi/images/build"
	"github.com/cosi-os/cosi/images/definition"
	"github.com/cosi-os/cosi/tools/internal/commandline"
)

func kernelCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "kernel ARCH",
		Short: "Build our own kernel, for definitions that say: kernel: {flavour: own}",
		Long: `Builds our own kernel into the cache: Debian's source, with the configuration in kernel/config. That takes half an hour and several GB. Does
nothing if the cache has the kernel; a build that was broken off goes on where it was.

Environment:
  COSI_CACHE   keeps kernels (default: cosi in $XDG_CACHE_HOME or ~/.cache)
  COSI_MIRROR  URL of a Debian archive; by default apt's own, where there is apt`,
		Args:      commandline.Arguments(cobra.ExactArgs(1)),
		ValidArgs: definition.Architectures,
		RunE: func(cmd *cobra.Command, args []string) error {
			if !slices.Contains(definition.Architectures, args[0]) {
				return commandline.Usagef("%s: want one of %s", args[0], strings.Join(definition.Architectures, ", "))
			}
			progress := newProgress(cmd.ErrOrStderr())
			defer progress.stop()
			o, err := complete(build.Options{}, ".", progress)
			if err != nil {
				return err
			}
			dir, built, err := build.Kernel(cmd.Context(), o, args[0])
			if err != nil {
				return err
			}
			progress.stop()
			fmt.Fprintln(cmd.OutOrStdout(), dir)
			if built {
				progress.log("our own kernel for %s built in %.0f s", args[0], progress.elapsed())
			} else {
				progress.log("our own kernel for %s is up to date", args[0])
			}
			return nil
		},
	}
}
