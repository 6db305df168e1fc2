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
	flags.StringVar(&o.image, "image", "build/cosi-base-amd64.raw", "boot this `file`: .raw, .qcow2 or .iso")
	flags.Func("fw", "boot by `firmware`: uefi, or kernel, where QEMU loads the kernel beside the image (default uefi)", func(s string) (err error) {
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
	if flags.NArg() > 0 {
		fmt.Fprintf(flags.Output(), "cosi-run takes no arguments, got %q\n", flags.Args())
		return o, errors.New("arguments")
	}
	return o, nil
}
