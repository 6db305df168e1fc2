// Command cosi-run boots an image in QEMU on this machine and waits until the node answers: what
// "make run" does. It keeps keys, user data, the node's disk, a data disk and the console's log in one
// directory, so that the next run finds the same node. Ctrl-C powers the node down.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/cosi-os/cosi/tools/qemu/node"
)

func main() {
	o, err := parse(os.Args[1:])
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err != nil {
		os.Exit(2) // the flag package has said why
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// From the second signal on, the default: it ends this program, and the VM with it.
	context.AfterFunc(ctx, stop)
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "cosi-run:", err)
		os.Exit(1)
	}
}

// options are what the flags say.
type options struct {
	image   string
	boot    node.Boot
	dir     string
	memory  int
	port    int
	timeout time.Duration
	console bool
	check   bool
	fresh   bool
}

func parse(args []string) (options, error) {
	o := options{boot: node.UEFI}
	flags := flag.NewFlagSet("cosi-run", flag.ContinueOnError)
	flags.StringVar(&o.image, "image", "build/cosi-base-amd64.raw", "boot this `file`: .raw, .qcow2 or .iso, or .efi or .ipxe over the network")
	flags.Func("fw", "boot by `firmware`: uefi, bios, or kernel, where QEMU loads the kernel beside the image (default uefi)", func(s string) (err error) {
		o.boot, err = node.ParseBoot(s)
		return err
	})
	flags.StringVar(&o.dir, "dir", "build/run", "keep keys, user data and disks in this `directory`")
	flags.IntVar(&o.memory, "mem", 1024, "memory in `MiB`")
	flags.IntVar(&o.port, "port", 50000, "`port` of 127.0.0.1 for the node's API; another one if it is taken")
	flags.DurationVar(&o.timeout, "timeout", 0, "give up when the node is not ready by then (default 1m with KVM, 6m without)")
	flags.BoolVar(&o.console, "console", false, "show the serial console")
	flags.BoolVar(&o.fresh, "fresh", false, "forget what the node has kept on its disk in earlier runs")
	flags.BoolVar(&o.check, "check", false, "power down once the node is ready; fail if it never is")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	err := o.sense(flags.Args())
	if err != nil {
		fmt.Fprintln(flags.Output(), "cosi-run:", err)
	}
	return o, err
}

// leastMemory is what a node is known to get ready with, in MiB.
const leastMemory = 256

// sense finds what no run can be made of: QEMU would take a quarter of a minute to say so, or the node would never be ready.
func (o options) sense(arguments []string) error {
	switch {
	case len(arguments) > 0:
		return fmt.Errorf("takes no arguments, got %q", arguments)
	case o.memory < leastMemory:
		return fmt.Errorf("-mem %d: a node takes %d MiB at least", o.memory, leastMemory)
	case o.port < 0 || o.port > 65535:
		return fmt.Errorf("-port %d: want 1 to 65535, or 0 for any that is free", o.port)
	case o.timeout < 0:
		return fmt.Errorf("-timeout %v: must not be negative", o.timeout)
	}
	return nil
}
