package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cosi-os/cosi/engine/boot"
	"github.com/cosi-os/cosi/engine/crash"
	"github.com/cosi-os/cosi/engine/node"
	"github.com/cosi-os/cosi/engine/output"
)

// begin makes a root for the machine, and goes on from it: what ran until here is in memory for good, and the root has a copy that is not.
func begin() {
	defer crash.Guard()
	began := boot.SinceBoot()
	if err := boot.Root(); err != nil {
		crash.Fatal(err.Error())
	}
	if _, err := os.Stat(installed); err == nil {
		err := unix.Exec(installed, []string{"engine", "machine", strconv.FormatInt(int64(began), 10)}, os.Environ())
		crash.Fatal(installed + ": " + err.Error())
	}
	machine(began)
}

// machine is PID 1 of a machine that has its root. It does not return.
func machine(began time.Duration) {
	defer crash.Guard()
	debug.SetGCPercent(25) // PID 1 keeps little and lives long: memory before speed
	signal.Ignore(unix.SIGPIPE, unix.SIGHUP, unix.SIGINT)
	ctx, cancel := context.WithCancelCause(context.Background())
	go terminated(cancel)
	switched := boot.SinceBoot()
	consoles := openConsoles()
	log := output.NewLog(consoles...)
	if !boot.KernelArgument("cosi.debug") {
		complain(log, boot.QuietKernel())
	}
	complain(log, boot.Settle()...)
	image, err := node.ReadImage("/")
	complain(log, err)
	moved, err := boot.ClockFloor(image.Built)
	complain(log, err)

	n := node.New(node.Config{Root: "/", Machine: true, Port: 50000, Engine: engine(), Image: image, ClockSet: moved}, log)
	n.Stage("engine", began)
	n.Stage("root", switched)
	log.Printf("COSI %s, PID 1 after %d ms, root after %d ms, from %s", image.Version, began.Milliseconds(), switched.Milliseconds(), boot.RootDevice())
	why, err := n.Run(ctx)
	complain(log, err)
	down(n, log, consoles, why.Reboot)
}

// down unmounts and ends the machine. If that hangs, the deadline that began with the node's stop ends it.
func down(n *node.Node, log *output.Log, consoles []*output.Console, restart bool) {
	n.Disarm()                  // nobody feeds it any more, and slow disks are no reason for a reset
	unix.Kill(-1, unix.SIGKILL) // whatever escaped its control group
	complain(log, boot.Unmount()...)
	unix.Sync()
	log.Printf("all file systems are written")
	for _, c := range consoles {
		c.Close(time.Second)
	}
	boot.Reboot(restart)
}

// terminated waits for SIGTERM: a container's, or that of someone who may signal PID 1.
func terminated(cancel context.CancelCauseFunc) {
	defer crash.Guard()
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, unix.SIGTERM)
	cancel(fmt.Errorf("signal %s", <-signals))
}

// openConsoles opens what the kernel prints on; standard error, whatever that is, if there is nothing.
func openConsoles() []*output.Console {
	var all []*output.Console
	for _, f := range boot.Consoles() {
		all = append(all, output.NewConsole(f))
	}
	if len(all) == 0 {
		all = append(all, output.NewConsole(io.Writer(os.Stderr)))
	}
	return all
}

// installed is this executable in a root image.
const installed = "/usr/bin/engine"

// engine is this executable in the root that was found.
func engine() string {
	if _, err := os.Stat(installed); err == nil {
		return installed
	}
	return "/init"
}

func complain(log *output.Log, problems ...error) {
	for _, err := range problems {
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			log.Printf("%v", err)
		}
	}
}
