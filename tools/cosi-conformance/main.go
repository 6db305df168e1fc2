// Cosi-conformance checks whether a server of the COSI State API (cosi.resource.State) keeps the rules that clients rely on.
//
//	cosi-conformance --endpoint unix:///tmp/cosi.sock
//
// Exit codes: 0 every rule is kept, 1 one is broken, 2 the server could not be checked or the command line makes no sense.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"regexp"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	"github.com/cosi-os/cosi/tools/client"
	"github.com/cosi-os/cosi/tools/internal/commandline"
	"google.golang.org/grpc/codes"
)

// Exit codes.
const (
	exitKept      = 0
	exitBroken    = 1
	exitUnchecked = 2
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// errBroken says that a rule is broken, which has been printed.
var errBroken = errors.New("a rule is broken")

func run(ctx context.Context, args []string, out, errs io.Writer) int {
	cmd := command(out)
	cmd.SetArgs(args)
	cmd.SetOut(out)
	cmd.SetErr(errs)
	switch err := cmd.ExecuteContext(ctx); {
	case err == nil:
		return exitKept
	case errors.Is(err, errBroken):
		return exitBroken
	default:
		fmt.Fprintf(errs, "cosi-conformance: %v\n", err)
		return exitUnchecked
	}
}

func command(out io.Writer) *cobra.Command {
	var endpoint, config, contextName, pattern, format string
	c := checker{out: out}
	cmd := &cobra.Command{
		Use:   "cosi-conformance --endpoint ADDRESS",
		Short: "Check a server of the COSI State API against the rules that its clients rely on",
		Long: `Check a server of cosi.resource.State against the rules that its clients rely on, one sentence each.

The server need not be empty: every rule writes kinds of its own into the namespace, any of which the server must take there, and removes what
it wrote. "runtime --listen" is such a server. Rules beyond what every server of the API does are checked with --extended, and those that outrun the
history of events only when --history says how many of a kind the server keeps.`,
		Example: `  cosi-conformance --endpoint unix:///tmp/cosi.sock
  cosi-conformance --endpoint unix:///tmp/cosi.sock --extended --history 2048
  cosi-conformance --endpoint node:50000 --context node --run 'Update|Watch'`,
		Args: cobra.NoArgs, SilenceErrors: true, SilenceUsage: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var err error
			if c.run, err = regexp.Compile(pattern); err != nil {
				return fmt.Errorf("--run: %w", err)
			}
			c.json = format == "json"
			conn, err := dial(endpoint, config, contextName)
			if err != nil {
				return err
			}
			defer conn.Close()
			c.api = conn.State
			if err := c.reachable(cmd.Context()); err != nil {
				return err
			}
			return c.check(cmd.Context())
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&endpoint, "endpoint", "", "`address` of the server: unix:///PATH or HOST[:PORT]")
	flags.StringVar(&config, "config", "", "configuration `file` of cosictl, for certificates")
	flags.StringVar(&contextName, "context", "", "`name` of the context with the certificates, for HOST[:PORT]")
	flags.StringVar(&c.namespace, "namespace", "default", "`namespace` to write in")
	flags.StringVar(&pattern, "run", "", "check only the rules that match the `regexp`")
	flags.BoolVar(&c.extended, "extended", false, "check also the rules that not every server keeps")
	flags.IntVar(&c.history, "history", 0, "how many events of a kind the server keeps")
	flags.DurationVar(&c.patience, "timeout", time.Minute, "how long one rule may take")
	commandline.AddOutput(cmd, &format, "text", "json")
	_ = cmd.MarkFlagRequired("endpoint") // fails only for an unknown flag
	cmd.AddCommand(pluginCommand(out))
	return cmd
}

func dial(endpoint, config, name string) (*client.Client, error) {
	if len(endpoint) > 5 && endpoint[:5] == "unix:" {
		return client.Dial(client.Context{Endpoint: endpoint})
	}
	if config == "" {
		var err error
		if config, err = client.ConfigPath(); err != nil {
			return nil, err
		}
	}
	known, err := client.LoadConfig(config)
	if err != nil {
		return nil, err
	}
	chosen, err := known.Context(name)
	if errors.Is(err, client.ErrNoContext) {
		return nil, fmt.Errorf("%w: --endpoint is unix:///PATH, or --context names whose certificates %s is reached with", err, endpoint)
	}
	if err != nil {
		return nil, err
	}
	c := *chosen
	c.Endpoint = endpoint
	return client.Dial(c)
}

// reachable tells a server that is not there from one that breaks every rule.
func (c *checker) reachable(ctx context.Context) error {
	_, err := c.api.Get(ctx, &resourcepb.GetRequest{Namespace: c.namespace, Type: "Things.conformance.cosi.dev", Id: "none"})
	switch client.Code(err) {
	case codes.Unavailable, codes.Unauthenticated, codes.PermissionDenied, codes.Canceled:
		return client.Explain(err)
	}
	return nil
}
