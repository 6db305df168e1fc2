// Command cosi-boot boots machines over the network: it serves DHCP, TFTP, HTTP and HTTPS, and shows how far each machine has come.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// usageError is the user's mistake in typing the command.
type usageError struct{ error }

// run executes one command line and returns the exit code: 0, 1 if it failed, 2 if it makes no sense.
func run(ctx context.Context, arguments []string, stdout, stderr io.Writer) int {
	root := &cobra.Command{
		Use:           "cosi-boot",
		Short:         "Boot machines over the network",
		Long:          `Boots machines over the network: by PXE with a BIOS and with UEFI, and by UEFI HTTP boot. docs/boot-server.md shows how.`,
		SilenceErrors: true, SilenceUsage: true,
		Args: usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetArgs(arguments)
	root.SetOut(stdout)
	root.SetErr(stderr)
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.AddCommand(serveCommand(), machinesCommand(), postCommand(), versionCommand())
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	fmt.Fprintln(stderr, "cosi-boot:", err)
	if errors.As(err, &usageError{}) {
		fmt.Fprintln(stderr, "Type cosi-boot --help for how it is used.")
		return 2
	}
	return 1
}

// usage makes what check refuses a mistake of usage.
func usage(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			return usageError{err}
		}
		return nil
	}
}

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print which cosi-boot this is",
		Args:  usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			info, ok := debug.ReadBuildInfo()
			if !ok {
				return errors.New("built without module information")
			}
			fmt.Fprintf(cmd.OutOrStdout(), "cosi-boot %s %s\n", info.Main.Version, info.GoVersion)
			return nil
		},
	}
}
