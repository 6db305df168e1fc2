package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/cosi-os/cosi/images/build"
	"github.com/cosi-os/cosi/images/definition"
	"github.com/cosi-os/cosi/kernel/own"
	"github.com/cosi-os/cosi/tools/internal/commandline"
)

func kernelCommand() *cobra.Command {
	var record bool
	o := build.Options{}
	cmd := &cobra.Command{
		Use:   "kernel [--record] ARCH",
		Short: "Build our own kernel, for definitions that say: kernel: {flavour: own}",
		Long: `Builds our own kernel into the cache: Debian's source, with the configuration in kernel/config. That takes half an hour and several GB. Does
nothing if the cache has the kernel; a build that was broken off goes on where it was.

The same source, options and tools give the same kernel: one that is not as kernel/built.sha256 has it is an error, and enters no image. Of one that this
file does not know the lines are printed that it lacks; --record adds them.

Environment:
  COSI_CACHE   keeps kernels (default: cosi in $XDG_CACHE_HOME or ~/.cache)
  COSI_MIRROR  URL of a Debian archive; by default apt's own, where there is apt
  COSI_TREE    the source tree, where the directory here is in none`,
		Args:      commandline.Arguments(1, 1),
		ValidArgs: definition.Architectures,
		RunE: func(cmd *cobra.Command, args []string) error {
			if !slices.Contains(definition.Architectures, args[0]) {
				return commandline.Usagef("%s: want one of %s", args[0], strings.Join(definition.Architectures, ", "))
			}
			progress := newProgress(cmd.ErrOrStderr())
			defer progress.stop()
			o, err := complete(o, ".", progress)
			if err != nil {
				return err
			}
			k, err := build.Kernel(cmd.Context(), o, args[0], record)
			if err != nil {
				return err
			}
			progress.stop()
			fmt.Fprintln(cmd.OutOrStdout(), k.Dir)
			reportKernel(progress, k, args[0])
			return nil
		},
	}
	addTree(cmd, &o.Tree, treeHere)
	cmd.Flags().BoolVar(&record, "record", false, "add the kernel to those that "+own.RecordFile+" knows")
	return cmd
}

// reportKernel says what came of it.
func reportKernel(progress *progress, k *build.OwnKernel, architecture string) {
	came := "is up to date"
	if k.Built {
		came = fmt.Sprintf("was built in %.0f s", progress.elapsed())
	}
	if k.Unrecorded == "" {
		progress.log("our own kernel for %s %s, and is as %s has it", architecture, came, own.RecordFile)
		return
	}
	progress.log("our own kernel for %s %s; %s does not know what becomes of this source with these options and tools. With --record it would have these lines:\n%s",
		architecture, came, own.RecordFile, strings.TrimSuffix(k.Unrecorded, "\n"))
}
