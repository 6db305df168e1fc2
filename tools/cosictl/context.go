package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/cosi-os/cosi/tools/client"
	"github.com/cosi-os/cosi/tools/internal/commandline"
	"github.com/cosi-os/cosi/tools/pki"
)

func newContext(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "context",
		Short: "Choose the node to talk to",
		Long:  "A context is an address, the name that the node must prove, and this client's certificate. Contexts are kept in the configuration file.",
	}
	commandline.Group(cmd)
	cmd.AddCommand(newContextList(a), newContextUse(a), newContextAdd(a), newContextRemove(a))
	return cmd
}

func newContextList(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Aliases: []string{"ls"},
		Short:   "List the contexts; * marks the current one",
		Args:    commandline.Arguments(0, 0),
		RunE: func(*cobra.Command, []string) error {
			config, _, err := a.config()
			if err != nil {
				return err
			}
			var rows [][]string
			for _, name := range config.Names() {
				c, current := config.Contexts[name], ""
				if name == config.Current {
					current = "*"
				}
				rows = append(rows, []string{current, name, c.Endpoint, verifiedBy(c), clientOf(c)})
			}
			newTable(a.out, a.colours, "", "NAME", "ENDPOINT", "NODE", "CLIENT").print(rows)
			return nil
		},
	}
}

func verifiedBy(c *client.Context) string {
	if c.Fingerprint != "" {
		return "pinned " + c.Fingerprint[:min(16, len(c.Fingerprint))] + "…"
	}
	return c.Node
}

// clientOf says who the client's certificate says it is, and until when.
func clientOf(c *client.Context) string {
	p, err := pki.Load([]byte(c.Certificate), []byte(c.Key))
	if err != nil {
		return ""
	}
	subject := p.Certificate.Subject
	return fmt.Sprintf("%s (%s) until %s", subject.CommonName, strings.Join(subject.Organization, ","), p.Certificate.NotAfter.Format("2006-01-02"))
}

func newContextUse(a *app) *cobra.Command {
	return &cobra.Command{
		Use:               "use NAME",
		Short:             "Make a context the current one",
		Args:              commandline.Arguments(1, 1),
		ValidArgsFunction: a.completeContexts,
		RunE: func(_ *cobra.Command, args []string) error {
			return a.changeConfig(func(config *client.Config) error {
				if _, err := config.Context(args[0]); err != nil {
					return err
				}
				config.Current = args[0]
				return nil
			})
		},
	}
}

func newContextRemove(a *app) *cobra.Command {
	return &cobra.Command{
		Use:               "remove NAME",
		Aliases:           []string{"rm"},
		Short:             "Remove a context",
		Args:              commandline.Arguments(1, 1),
		ValidArgsFunction: a.completeContexts,
		RunE: func(_ *cobra.Command, args []string) error {
			return a.changeConfig(func(config *client.Config) error {
				if _, err := config.Context(args[0]); err != nil {
					return err
				}
				delete(config.Contexts, args[0])
				if config.Current == args[0] {
					config.Current = ""
				}
				return nil
			})
		},
	}
}

type contextAdd struct {
	*app
	node, client, dir string
	ca, cert, key     string
}

func newContextAdd(a *app) *cobra.Command {
	add := &contextAdd{app: a}
	cmd := &cobra.Command{
		Use:   "add NAME --endpoint ADDRESS",
		Short: "Add a context, or replace one",
		Long: `Add a context, or replace one. It becomes the current one if there is none.

--node is the name that the node's certificate must hold, whatever the address; it is NAME unless given. The CA and the client's pair
come from what "cosictl gen" keeps (--client NAME), or from files.`,
		Example: `  cosictl context add lab1 --endpoint 192.0.2.10 --client me
  cosictl context add vm --endpoint 127.0.0.1:50000 --node lab1 --ca ca.crt --cert me.crt --key me.key
  cosictl context add dev --endpoint unix:///tmp/dev/run/cosi/runtime.sock`,
		Args: commandline.Arguments(1, 1),
		RunE: func(_ *cobra.Command, args []string) error { return add.run(args[0]) },
	}
	flags := cmd.Flags()
	flags.StringVar(&add.node, "node", "", "`name` of the node")
	flags.StringVar(&add.client, "client", "", "`name` of a client that gen has made")
	flags.StringVar(&add.dir, "dir", "", dirUsage)
	flags.StringVar(&add.ca, "ca", "", "`file` with the CA of serving certificates")
	flags.StringVar(&add.cert, "cert", "", "`file` with the client's certificate")
	flags.StringVar(&add.key, "key", "", "`file` with the client's key")
	return cmd
}

func (add *contextAdd) run(name string) error {
	if add.endpoint == "" {
		return commandline.Usagef("--endpoint is missing: where is the node?")
	}
	if (add.cert == "") != (add.key == "") || add.cert != "" && add.client != "" {
		return commandline.Usagef("either --client NAME, or --cert and --key")
	}
	c := &client.Context{Endpoint: add.endpoint}
	if !strings.HasPrefix(c.Endpoint, "unix:") {
		if _, err := client.Address(c.Endpoint); err != nil {
			return commandline.Usagef("--endpoint: %w", err)
		}
		if err := add.credentials(c, name); err != nil {
			return err
		}
	}
	return add.changeConfig(func(config *client.Config) error {
		config.Contexts[name] = c
		if config.Current == "" {
			config.Current = name
		}
		return nil
	})
}

func (add *contextAdd) credentials(c *client.Context, name string) error {
	c.Node = add.node
	if c.Node == "" {
		c.Node = name
	}
	store, err := add.store(add.dir)
	if err != nil {
		return err
	}
	caFile, certFile, keyFile := add.ca, add.cert, add.key
	if caFile == "" {
		caFile = store.CertFile(pki.CAName)
	}
	if add.client != "" {
		certFile, keyFile = store.CertFile(pki.ClientName(add.client)), store.KeyFile(pki.ClientName(add.client))
	}
	if certFile == "" {
		return commandline.Usagef("--client NAME, or --cert and --key: the node knows its clients by their certificates")
	}
	for _, part := range []struct {
		file string
		into *string
	}{{caFile, &c.CA}, {certFile, &c.Certificate}, {keyFile, &c.Key}} {
		data, err := os.ReadFile(part.file)
		if err != nil {
			return err
		}
		*part.into = string(data)
	}
	_, err = c.TLS() // whether the parts fit together
	return err
}

// changeConfig replaces the configuration by what f makes of it.
func (a *app) changeConfig(f func(*client.Config) error) error {
	config, path, err := a.config()
	if err != nil {
		return err
	}
	if err := f(config); err != nil {
		return err
	}
	return config.Save(path)
}
