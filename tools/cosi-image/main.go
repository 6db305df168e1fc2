// Command cosi-image builds images of COSI nodes from YAML definitions.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/cosi-os/cosi/images/build"
	"github.com/cosi-os/cosi/images/inspect"
	"github.com/cosi-os/cosi/images/sbom"
	"github.com/cosi-os/cosi/tools/internal/commandline"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	context.AfterFunc(ctx, stop) // what only reads ends with the second one
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// unequalError says that two things which were compared are not the same. What is different was printed.
type unequalError struct{}

func (unequalError) Error() string { return "not the same" }

// undecidedError is why two things could not be compared.
type undecidedError struct{ error }

func (e undecidedError) Unwrap() error { return e.error }

// run executes one command line and returns the exit code: 0, 1 if it failed, 2 if it makes no sense. Of commands that compare, 1 says that
// there are differences, and 2 that nobody knows.
func run(ctx context.Context, arguments []string, stdout, stderr io.Writer) int {
	root := commandline.Root("cosi-image", "Build images of COSI nodes from YAML definitions", "")
	root.SetArgs(arguments)
	root.SetOut(stdout)
	root.SetErr(stderr)
	root.AddCommand(buildCommand(), planCommand(), diffCommand(), verifyCommand(), inspectCommand(), rootCommand(), kernelCommand(), genCommand(), commandline.VersionCommand("cosi-image"))
	err := root.ExecuteContext(ctx)
	if errors.As(err, &unequalError{}) {
		return 1
	}
	code := commandline.Exit("cosi-image", err, stderr)
	if errors.As(err, &undecidedError{}) {
		return 2
	}
	return code
}

const environment = `
Environment:
  COSI_CACHE         keeps packages and compiled programs (default: cosi in $XDG_CACHE_HOME or ~/.cache)
  COSI_MIRROR        URL of a Debian archive; by default apt's own, where there is apt
  COSI_TREE          the source tree for definitions that lie in none
  SOURCE_DATE_EPOCH  the time of everything in the image, in seconds (default: the git commit's)
  COSI_PKCS11_MODULE the module of the tokens, COSI_PKCS11_PIN their PIN: for keys whose URIs name none`

func buildCommand() *cobra.Command {
	o := build.Options{}
	cmd := &cobra.Command{
		Use:   "build [-o DIR] DEFINITION",
		Short: "Build an image: raw, qcow2, ISO, what the definition says",
		Long: `Builds the image of a definition. Does nothing if nothing has changed. The same sources give the same bytes.

A definition may lie anywhere. The source tree that is built is the one that it lies in, unless --tree names another; it extends definitions by their
names, if they are beside it or in the tree's images.

What a definition has signed, a private key signs. With --signatures none is needed: an image that is there, or the manifest beside it, gives the
signatures that it has, and what they are not over is left without a good one.
` + environment,
		Args: commandline.Arguments(1, 1),

		ValidArgsFunction: completeFiles(1, "yaml"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return doBuild(cmd, o, args[0])
		},
	}
	addTree(cmd, &o.Tree, treeOfDefinition)
	cmd.Flags().StringVarP(&o.Output, "output", "o", "build", "directory for the outputs")
	cmd.Flags().StringVar(&o.Signatures, "signatures", "", "take the signatures of an image or a manifest, a `file`, instead of signing")
	return cmd
}

func doBuild(cmd *cobra.Command, o build.Options, definition string) error {
	progress := newProgress(cmd.ErrOrStderr())
	defer progress.stop()
	o, err := complete(o, definition, progress)
	if err != nil {
		return err
	}
	result, err := build.Run(cmd.Context(), o, definition)
	if err != nil {
		return err
	}
	progress.stop()
	for _, file := range result.Outputs {
		fmt.Fprintf(cmd.OutOrStdout(), "%s  %.1f MB\n", filepath.Join(o.Output, file.Name), float64(file.Size)/1e6)
	}
	progress.log("%s", summary(result, progress.elapsed()))
	return nil
}

// summary is the last line of a build that took so many seconds.
func summary(r *build.Result, seconds float64) string {
	name := r.Plan.Name
	switch {
	case r.UpToDate:
		return fmt.Sprintf("%s is up to date (%.2f s)", name, seconds)
	case r.Unpinned:
		return fmt.Sprintf("%s built in %.2f s, UNPINNED: see the warnings above", name, seconds)
	}
	return fmt.Sprintf("%s built in %.2f s", name, seconds)
}

func rootCommand() *cobra.Command {
	o := build.Options{}
	cmd := &cobra.Command{
		Use:   "root -o DIR DEFINITION",
		Short: "Write the root file system into a directory, for an engine beside another system",
		Long:  "Writes what a node runs, compiled for this machine and without kernel modules, into a directory: engine --root DIR runs it.",
		Args:  commandline.Arguments(1, 1),

		ValidArgsFunction: completeFiles(1, "yaml"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if o.Output == "" {
				return commandline.Usagef("say where, with --output DIR")
			}
			progress := newProgress(cmd.ErrOrStderr())
			defer progress.stop()
			o, err := complete(o, args[0], progress)
			if err != nil {
				return err
			}
			_, err = build.Root(cmd.Context(), o, args[0])
			return err
		},
	}
	addTree(cmd, &o.Tree, treeOfDefinition)
	cmd.Flags().StringVarP(&o.Output, "output", "o", "", "directory to write into")
	return cmd
}

func planCommand() *cobra.Command {
	var format string
	o := build.Options{}
	cmd := &cobra.Command{
		Use:   "plan DEFINITION",
		Short: "Print what a build would make, and why",
		Long: `Prints what a build of the definition would make. Behind each thing stands why: the file and line that ask for it, or what needs it. What the
modules need, and sizes, are known once the packages were fetched and the programs compiled.`,
		Example: `  cosi-image plan images/base.yaml
  cosi-image plan --tree ~/cosi mine.yaml
  cosi-image plan -o json images/base.yaml | jq '.sections[] | select(.name == "modules").items[].name'`,
		Args:              commandline.Arguments(1, 1),
		ValidArgsFunction: completeFiles(1, "yaml"),
		RunE: func(cmd *cobra.Command, args []string) error {
			o, err := complete(o, args[0], nil)
			if err != nil {
				return err
			}
			e, err := build.Explain(cmd.Context(), o, args[0])
			if err != nil {
				return err
			}
			return show(cmd.OutOrStdout(), format, e, e.String)
		},
	}
	addTree(cmd, &o.Tree, treeOfDefinition)
	commandline.AddOutput(cmd, &format, formats...)
	return cmd
}

func inspectCommand() *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:   "inspect IMAGE",
		Short: "Print what is in an image: partitions, files, versions, arguments, signatures",
		Long: `Prints what an image is and holds: any output but .vmlinuz and .ipxe; an .upgrade as the disk that it is installed as. What it is made of, it says itself. Signatures are shown with the certificate that they carry, and whether they are good by it; whether
that is to be trusted is for the firmware and the kernel to say. PCR 11 is what a TPM holds once the image runs.

With -o spdx it prints the list of all software in the image (SBOM, SPDX 2.3): the programs and of which modules each was linked, the kernel and
the boot loaders. Licences of modules are looked up in Go's module cache, where they are.`,
		Example: `  cosi-image inspect build/cosi-base-amd64.raw
  cosi-image inspect -o spdx build/cosi-base-amd64.raw > sbom.spdx.json
  cosi-image inspect -o json build/cosi-base-amd64.iso | jq '.files[] | select(.place == "root")'`,
		Args:              commandline.Arguments(1, 1),
		ValidArgsFunction: completeFiles(1, imageFiles...),
		RunE: func(cmd *cobra.Command, args []string) error {
			image, err := inspect.Open(args[0])
			if err != nil {
				return err
			}
			defer image.Close()
			if format == spdx {
				return sbom.Write(cmd.OutOrStdout(), image, moduleCache(cmd.Context()))
			}
			r, err := image.Report()
			if err != nil {
				return err
			}
			return show(cmd.OutOrStdout(), format, r, r.String)
		},
	}
	commandline.AddOutput(cmd, &format, append(slices.Clip(formats), spdx)...)
	return cmd
}

// spdx is the format of inspect that is a list of software.
const spdx = "spdx"

// moduleCache is the directory of Go's module cache, empty where there is no Go.
func moduleCache(ctx context.Context) string {
	out, err := exec.CommandContext(ctx, "go", "env", "GOMODCACHE").Output()
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(out))
}

// imageFiles are the extensions of images.
var imageFiles = []string{"raw", "qcow2", "iso", "upgrade", "efi", "initramfs", "vhd", "vmdk", "ova", "gcp.tar.gz", "oci.tar", "raw.zst", "raw.gz", "raw.xz"}
