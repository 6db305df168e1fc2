// Cosictl is the command line client of a node: it reads, writes and watches resources, and makes keys and user data.
//
// Exit codes: 0 done, 1 an error, 2 a command line that makes no sense, 3 what was waited for has not come. As is usual, diff ends with 1
// when there are differences and with 2 for an error.
package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/term"

	"github.com/cosi-os/cosi/tools/client"
	"github.com/cosi-os/cosi/tools/internal/commandline"
)

// Exit codes.
const (
	exitOK      = 0
	exitError   = 1
	exitUsage   = 2
	exitTimeout = 3
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	colours := term.IsTerminal(int(os.Stdout.Fd())) && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
	code := run(ctx, os.Args[1:], &app{
		in: os.Stdin, out: os.Stdout, err: os.Stderr, colours: colours, now: time.Now, rand: rand.Reader,
	})
	stop()
	os.Exit(code)
}

// app is what commands work with. The flags of every command are in it, so that no command has globals.
type app struct {
	in      io.Reader
	out     io.Writer
	err     io.Writer
	colours bool
	now     func() time.Time
	rand    io.Reader

	configFile  string
	contextName string
	endpoint    string
}

// timeoutError is something waited for in vain.
type timeoutError struct{ error }

func run(ctx context.Context, args []string, a *app) int {
	root := newRoot(a)
	root.SetArgs(args)
	root.SetIn(a.in)
	root.SetOut(a.out)
	root.SetErr(a.err)
	// Cobra's, which keeps the output that root has now, shows its help for a shell that it does not know, and no error.
	root.InitDefaultCompletionCmd()
	if completion, _, err := root.Find([]string{"completion"}); err == nil {
		commandline.Group(completion)
	}
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	if _, ok := err.(differs); ok {
		return exitError
	}
	fmt.Fprintf(a.err, "cosictl: %v\n", err)
	var usage commandline.UsageError
	var late timeoutError
	var undecided unsure
	var unready *client.TimeoutError
	switch {
	case errors.As(err, &usage), errors.As(err, &undecided):
		return exitUsage
	case errors.As(err, &late), errors.As(err, &unready):
		return exitTimeout
	}
	return exitError
}
