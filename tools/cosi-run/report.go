package main

import (
	"context"
	"fmt"
	"io"
	"regexp"
	"time"

	machinepb "github.com/cosi-os/cosi/api/cosi/machine/v1alpha1"
	"github.com/cosi-os/cosi/tools/qemu/node"
)

// report prints what happened and when, a line each: the same on a terminal and in a log.
type report struct {
	out   io.Writer
	began time.Time
}

func newReport(out io.Writer) *report { return &report{out, time.Now()} }

// stage prints a line with the time since the VM was started.
func (r *report) stage(format string, args ...any) {
	fmt.Fprintf(r.out, "%6.1fs  %s\n", time.Since(r.began).Seconds(), fmt.Sprintf(format, args...))
}

// alive matches the first output of what the firmware has started: the kernel's, or the engine's when
// the kernel is told to be quiet.
var alive = regexp.MustCompile(`(?m)^(EFI stub:|\[ +\d+\.\d+\]|engine|cosi)`)

// until waits until the node is ready, with a line for each step.
func (r *report) until(ctx context.Context, n *node.Node) error {
	if err := r.untilTLS(ctx, n); err != nil {
		return err
	}
	r.stage("the API answers on %s", n.Context.Endpoint)
	c, err := n.Dial()
	if err != nil {
		return err
	}
	defer c.Close()
	status, err := n.WaitReady(ctx, c)
	if err != nil {
		return err
	}
	r.stage("ready: %s, version %s, Linux %s", status.GetName(), status.GetVersion(), status.GetKernel())
	r.inside(status)
	return nil
}

// untilTLS waits for the port, and meanwhile for the first sign of life on the console.
func (r *report) untilTLS(ctx context.Context, n *node.Node) error {
	ctx, cancel := context.WithCancel(ctx)
	watched := make(chan struct{})
	defer func() { cancel(); <-watched }()
	go func() {
		defer close(watched)
		if _, err := n.Console.Wait(ctx, 0, alive); err == nil {
			r.stage("the kernel runs")
		}
	}()
	return n.WaitTLS(ctx)
}

// inside prints the stages that the node has measured itself.
func (r *report) inside(status *machinepb.MachineStatus) {
	if len(status.GetStages()) == 0 {
		return
	}
	fmt.Fprint(r.out, "         on the node's own clock:")
	for _, s := range status.GetStages() {
		fmt.Fprintf(r.out, " %s %.2fs", s.GetName(), float64(s.GetMilliseconds())/1000)
	}
	fmt.Fprintln(r.out)
}

// how tells how to talk to the node.
func (r *report) how(config, endpoint, console string) {
	fmt.Fprintf(r.out, `
Talk to the node from another terminal:

  build/bin/cosictl --config %[1]s get machine
  build/bin/cosictl --config %[1]s get plugins
  build/bin/cosictl --config %[1]s logs engine -f

Its API is at %[2]s, its console in %[3]s, its data disk is /dev/vdb.
Ctrl-C powers it down.
`, config, endpoint, console)
}
