package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/cosi-os/cosi/tools/client"
	"github.com/cosi-os/cosi/tools/internal/commandline"
	"github.com/cosi-os/cosi/tools/pki"
)

type trustCommand struct {
	*app
	fingerprint, as, client, dir string
}

func newTrust(a *app) *cobra.Command {
	t := &trustCommand{app: a}
	cmd := &cobra.Command{
		Use:   "trust ADDRESS --fingerprint SHA256",
		Short: "Trust a node that made its own certificate",
		Long: `Trust a node that made its own certificate, by the fingerprint that its console shows.

The certificate that the node serves is fetched and compared; if it fits, it is pinned in a context, and no other certificate is
accepted in that context from then on. If it does not fit, somebody else answers at that address: nothing is stored.

The node keeps its certificate on its disk: it is the same after every boot, until the state is reset ("cosictl reset state"). A node that has
no disk of its own, or whose state is damaged, makes another at each start, and must be trusted again.`,
		Example: "  cosictl trust 192.0.2.10 --fingerprint 3f0c…  --client me --as lab1",
		Args:    commandline.Arguments(1, 1),
		RunE:    t.run,
	}
	flags := cmd.Flags()
	flags.StringVar(&t.fingerprint, "fingerprint", "", "`SHA-256` of the serving certificate, as the console shows it")
	flags.StringVar(&t.as, "as", "", "`name` of the context (default: ADDRESS)")
	flags.StringVar(&t.client, "client", "", "`name` of a client that gen has made; not needed for a context that is there already")
	flags.StringVar(&t.dir, "dir", "", dirUsage)
	return cmd
}

func (t *trustCommand) run(cmd *cobra.Command, args []string) error {
	if t.fingerprint == "" {
		return commandline.Usagef("--fingerprint is missing: the node's console shows it")
	}
	want, err := pki.ParseFingerprint(t.fingerprint)
	if err != nil {
		return commandline.Usage(err)
	}
	certificate, err := client.ServingCertificate(cmd.Context(), args[0])
	if err != nil {
		return err
	}
	if got := pki.Fingerprint(certificate); got != want {
		return fmt.Errorf("%s shows a certificate with the fingerprint %s: it is not the node you mean, nothing is trusted", args[0], got)
	}
	name := t.as
	if name == "" {
		name = args[0]
	}
	if err := t.pin(name, args[0], want); err != nil {
		return err
	}
	fmt.Fprintf(t.out, "context %q trusts %s\n", name, want)
	return nil
}

func (t *trustCommand) pin(name, address, fingerprint string) error {
	return t.changeConfig(func(config *client.Config) error {
		c := config.Contexts[name]
		if c == nil {
			c = &client.Context{}
			config.Contexts[name] = c
		}
		c.Endpoint, c.Fingerprint = address, fingerprint
		if t.client != "" {
			store, err := t.store(t.dir)
			if err != nil {
				return err
			}
			p, err := store.Load(pki.ClientName(t.client))
			if err != nil {
				return err
			}
			c.Certificate, c.Key = string(p.CertPEM), string(p.KeyPEM)
		}
		if c.Certificate == "" {
			return commandline.Usagef("--client is missing: the node knows its clients by their certificates")
		}
		if config.Current == "" {
			config.Current = name
		}
		return nil
	})
}
