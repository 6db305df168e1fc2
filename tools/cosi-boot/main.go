// Command cosi-boot boots machines over the network: it serves DHCP, TFTP, HTTP and HTTPS, and shows how far each machine has come.
package main

import (
	"context"
	"io"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"

	"github.com/cosi-os/cosi/tools/internal/commandline"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run executes one command line and returns the exit code: 0, 1 if it failed, 2 if it makes no sense.
func run(ctx context.Context, arguments []string, stdout, stderr io.Writer) int {
	root := commandline.Root("cosi-boot", "Boot machines over the network",
		"Boots machines over the network: by PXE with a BIOS and with UEFI, and by UEFI HTTP boot. docs/boot-server.md shows how.")
	root.SetArgs(arguments)
	root.SetOut(stdout)
	root.SetErr(stderr)
	root.AddCommand(serveCommand(), machinesCommand(), postCommand(), commandline.VersionCommand("cosi-boot"))
	return commandline.Exit("cosi-boot", root.ExecuteContext(ctx), stderr)
}
