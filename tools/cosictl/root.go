package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/cosi-os/cosi/tools/client"
	"github.com/cosi-os/cosi/tools/internal/commandline"
)

func newRoot(a *app) *cobra.Command {
	root := &cobra.Command{
		Use:   "cosictl",
		Short: "Talk to a COSI node",
		Long: `cosictl reads, writes and watches the resources of a COSI node, which is all there is to do with one.

What people want stands in the namespace config; what is so stands in status. "cosictl get" lists the kinds.`,
		Example: `  cosictl get                              # the kinds
  cosictl get mounts                       # all MountPoints
  cosictl apply -f mount.yaml --wait       # write a resource and wait until it is so
  cosictl logs mount -f                    # follow what the plugin "mount" prints`,
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	commandline.Group(root)
	root.ValidArgs = []cobra.Completion{"list\tAnother name of get"} // cobra completes commands, not their aliases
	commandline.Flags(root)
	flags := root.PersistentFlags()
	flags.StringVar(&a.configFile, "config", "", "configuration `file` (default $XDG_CONFIG_HOME/cosi/config.yaml)")
	flags.StringVar(&a.contextName, "context", "", "`name` of the context to use instead of the current one")
	flags.StringVar(&a.endpoint, "endpoint", "", "`address` to dial instead of the context's: HOST[:PORT] or unix:///PATH")
	_ = root.RegisterFlagCompletionFunc("context", a.completeContexts) // fails only for an unknown flag
	root.AddCommand(
		newGet(a), newApply(a), newDiff(a), newDelete(a), newWatch(a), newEvents(a), newLogs(a), newDescribe(a), newWhy(a), newWait(a), newExport(a), newExplain(a), newSchema(a), newValidate(a),
		newUpgrade(a), newRollback(a), newInstall(a), newReset(a), newContext(a), newTrust(a), newGen(a), newVersion(a),
	)
	return root
}

// config reads the configuration and says where it is.
func (a *app) config() (*client.Config, string, error) {
	path := a.configFile
	if path == "" {
		var err error
		if path, err = client.ConfigPath(); err != nil {
			return nil, "", err
		}
	}
	config, err := client.LoadConfig(path)
	return config, path, err
}

// dial connects to the node that flags and configuration choose.
func (a *app) dial() (*client.Client, error) {
	// A local socket needs no context, nor a configuration that can be read.
	if strings.HasPrefix(a.endpoint, "unix:") {
		return client.Dial(client.Context{Endpoint: a.endpoint})
	}
	config, _, err := a.config()
	if err != nil {
		return nil, err
	}
	chosen, err := config.Context(a.contextName)
	if errors.Is(err, client.ErrNoContext) {
		return nil, fmt.Errorf("%w: add one with 'cosictl context add' or use --endpoint unix:///PATH", err)
	}
	if err != nil {
		return nil, err
	}
	c := *chosen
	if a.endpoint != "" {
		c.Endpoint = a.endpoint
	}
	return client.Dial(c)
}

// withClient makes a command's function of one that needs a connection.
func (a *app) withClient(f func(ctx context.Context, c *client.Client, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		c, err := a.dial()
		if err != nil {
			return err
		}
		defer c.Close()
		return f(cmd.Context(), c, args)
	}
}
