package sdk

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"
	"syscall"

	"github.com/cosi-os/cosi/api/declaration"
)

// Main is the whole of a plugin's main: it reads the flags, forbids the process to execute programs, and runs p until the runtime
// has drained it or the process gets SIGTERM. While p has nothing to reconcile, the process gives memory back and does not wake up to
// collect garbage. It does not return.
func Main(p Plugin) {
	log.SetFlags(0) // the engine adds the time and the plugin's name
	os.Exit(start(p, os.Args[1:], os.Stdout))
}

// start is Main with an exit code: 0 when the plugin was asked to end, 2 for wrong arguments, 1 for everything else.
func start(p Plugin, args []string, out io.Writer) int {
	d, err := declaration.Parse(p.Declaration)
	if err != nil {
		log.Printf("plugin.json: %v", err)
		return 1
	}
	flags := flag.NewFlagSet(d.Name, flag.ContinueOnError)
	version := flags.Bool("version", false, "print the version")
	declared := flags.Bool("declaration", false, "print the declaration: what the plugin is and may do")
	flags.Usage = func() { usage(flags, d) }
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		return 2
	case flags.NArg() > 0:
		fmt.Fprintf(flags.Output(), "%s takes no arguments\n", d.Name)
		return 2
	case *version:
		fmt.Fprintln(out, d.Name, p.Version)
		return 0
	case *declared:
		fmt.Fprintf(out, "%s", p.Declaration)
		return 0
	}
	if err := confined(p); err != nil {
		log.Print(err)
		return 1
	}
	return 0
}

func usage(flags *flag.FlagSet, d *declaration.Declaration) {
	fmt.Fprintf(flags.Output(), "%s is a COSI plugin: %s.\n\n", d.Name, d.Description)
	fmt.Fprintf(flags.Output(), "The engine starts it, with the socket of the runtime in %s (unix:///run/cosi/plugin/%s.sock).\n\nFlags:\n", EnvEndpoint, d.Name)
	flags.PrintDefaults()
}

// confined runs p without the right to execute programs.
func confined(p Plugin) error {
	if err := denyExec(); err != nil {
		return fmt.Errorf("deny execve: %w", err)
	}
	if p.Early != nil {
		if done, err := p.Early(); done || err != nil {
			return err
		}
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := run(ctx, p, newRest()); err != nil && ctx.Err() == nil {
		return err
	}
	return nil
}
