// Package commandline holds what the command lines of all our programs have in common, so that they answer alike: mistakes of usage, the flag -o,
// and which program this is. The programs in tools call it.
package commandline

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/cosi-os/cosi/images/strict"
)

// UsageError is a command line that makes no sense: exit code 2.
type UsageError struct{ error }

// Unwrap returns what is wrong with it.
func (e UsageError) Unwrap() error { return e.error }

// Usage makes an error a mistake of usage.
func Usage(err error) error { return UsageError{err} }

// Usagef returns a mistake of usage.
func Usagef(format string, args ...any) error { return UsageError{fmt.Errorf(format, args...)} }

// Arguments says how many arguments a command takes, in the words of its usage line.
func Arguments(least, most int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch n := len(args); {
		case n >= least && n <= most:
			return nil
		case n == 1:
			return Usagef("1 argument does not fit: %s", cmd.UseLine())
		default:
			return Usagef("%d arguments do not fit: %s", n, cmd.UseLine())
		}
	}
}

// Group makes cmd one that only holds others: alone it prints its help, and a command that it has not is a mistake of usage.
func Group(cmd *cobra.Command) {
	cmd.Args = cobra.ArbitraryArgs
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) > 0 {
			return unknown(cmd, args[0])
		}
		return cmd.Help()
	}
}

func unknown(cmd *cobra.Command, name string) error {
	// Cobra's own limit, which it fills in only when it reports the error itself.
	cmd.SuggestionsMinimumDistance = 2
	if near := cmd.SuggestionsFor(name); len(near) > 0 {
		return Usagef("unknown command %q (did you mean %s?)", name, strings.Join(near, ", "))
	}
	return Usagef("unknown command %q (see '%s --help')", name, cmd.CommandPath())
}

// Flags makes a flag that cmd, and those below it, do not have a mistake of usage.
func Flags(cmd *cobra.Command) {
	cmd.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return Usagef("%w\nSee '%s --help'", err, cmd.CommandPath())
	})
}

// Root returns the command that holds a program's others, and alone prints its help. long may be empty.
func Root(name, short, long string) *cobra.Command {
	root := &cobra.Command{
		Use: name, Short: short, Long: long,
		SilenceErrors: true, SilenceUsage: true,
	}
	Group(root)
	Flags(root)
	return root
}

// Exit prints an error of a program and returns its exit code: 0 if there is none, 2 for a mistake of usage, otherwise 1. Of mistakes in a file it
// prints a line each, and counts them.
func Exit(program string, err error, stderr io.Writer) int {
	if err == nil {
		return 0
	}
	text := err.Error()
	switch {
	case errors.Is(err, context.Canceled):
		text = "interrupted"
	case errors.As(err, &strict.Problems{}):
		// A line each, as editors read them.
		fmt.Fprintln(stderr, text)
		if n := strings.Count(text, "\n") + 1; n > 1 {
			text = fmt.Sprintf("%d problems", n)
		} else {
			text = "1 problem"
		}
	}
	fmt.Fprintf(stderr, "%s: %s\n", program, text)
	if errors.As(err, &UsageError{}) {
		return 2
	}
	return 1
}

// AddOutput gives a command the flag -o with formats, of which the first is the default.
func AddOutput(cmd *cobra.Command, format *string, formats ...string) {
	cmd.Flags().StringVarP(format, "output", "o", formats[0], "`format`: "+strings.Join(formats, ", "))
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(formats, cobra.ShellCompDirectiveNoFileComp)) // fails only for an unknown flag
	check := cmd.PreRunE
	cmd.PreRunE = func(cmd *cobra.Command, args []string) error {
		if !slices.Contains(formats, *format) {
			return Usagef("-o %s: must be one of %s", *format, strings.Join(formats, ", "))
		}
		if check != nil {
			return check(cmd, args)
		}
		return nil
	}
}

// Version is what the Go linker knows of a program: the module's version, and the commit that it was built from.
func Version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	text := info.Main.Version
	for _, setting := range info.Settings {
		if setting.Key == "vcs.revision" && len(setting.Value) >= 12 {
			text += " (" + setting.Value[:12] + ")"
		}
	}
	return text + ", " + info.GoVersion
}

// VersionCommand returns the command version of a program.
func VersionCommand(program string) *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print which " + program + " this is",
		Args:  Arguments(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintln(cmd.OutOrStdout(), program, Version())
			return err
		},
	}
}
