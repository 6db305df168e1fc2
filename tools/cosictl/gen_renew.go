package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	machinepb "github.com/cosi-os/cosi/api/cosi/machine/v1alpha1"
	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	"github.com/cosi-os/cosi/tools/client"
	"github.com/cosi-os/cosi/tools/pki"
)

type renewCommand struct {
	*genCommand
	apply   bool
	timeout time.Duration
}

func newGenRenew(g *genCommand) *cobra.Command {
	r := &renewCommand{genCommand: g}
	cmd := &cobra.Command{
		Use:   "renew [NAME...]",
		Short: "Renew certificates, before or after their expiry",
		Long: `Renew certificates (all, or ca, node-NAME, client-NAME), before or after their expiry. Keys and names stay.

Contexts that hold a renewed certificate get the new one. With --apply nodes get theirs, and the CA as it is now, through the context
that names them (or --context and --endpoint); the rest of what they trust, revocations among it, stays. A node whose certificate has expired is
known by its key then, which is kept here and stays the same; from anybody else, an expired certificate is refused as ever.

Without its key, on another machine than the one that has made it, "cosictl trust" accepts a node by the fingerprint that its console shows. Nodes
know clients by the CA: renew it, and --apply it, before it expires. After that they let nobody in until they are given new user data.`,
		Example: `  cosictl gen renew
  cosictl gen renew node-lab1 --apply`,
		RunE: func(cmd *cobra.Command, args []string) error { return r.run(cmd.Context(), args) },
	}
	cmd.Flags().BoolVar(&r.apply, "apply", false, "have nodes serve with their new certificates")
	cmd.Flags().DurationVar(&r.timeout, "timeout", 30*time.Second, "with --apply: how long to wait for a node")
	return cmd
}

func (r *renewCommand) run(ctx context.Context, names []string) error {
	store, err := r.store(r.dir)
	if err != nil {
		return err
	}
	if len(names) == 0 {
		// "ca" sorts before "client-…" and "node-…": what is renewed after it is signed by the new one.
		if names, err = store.Names(); err != nil {
			return err
		}
	}
	for _, name := range names {
		if err := r.renew(store, name); err != nil {
			return err
		}
	}
	if !r.apply {
		return nil
	}
	var failed []error
	for _, name := range names {
		if node, is := strings.CutPrefix(name, pki.NodeName("")); is {
			if err := r.give(ctx, store, node); err != nil {
				failed = append(failed, fmt.Errorf("node %s: %w", node, err))
			}
		}
	}
	return errors.Join(failed...)
}

func (r *renewCommand) renew(store pki.Store, name string) error {
	old, err := store.Load(name)
	if err != nil {
		return err
	}
	var ca *pki.Pair
	if name != pki.CAName {
		if ca, err = r.authority(store); err != nil {
			return err
		}
	}
	fresh, err := r.maker().Renew(ca, old)
	if err != nil {
		return err
	}
	if err := store.Save(name, fresh); err != nil {
		return err
	}
	fmt.Fprintf(r.out, "%s  valid until %s, was %s\n", store.CertFile(name), expiry(fresh, r.now()), expiry(old, r.now()))
	return r.renewContexts(string(old.CertPEM), string(fresh.CertPEM))
}

// renewContexts puts a renewed certificate wherever the old one stands.
func (r *renewCommand) renewContexts(old, fresh string) error {
	config, path, err := r.config()
	if err != nil {
		return err
	}
	changed := false
	for _, c := range config.Contexts {
		for _, pem := range []*string{&c.CA, &c.Certificate} {
			if strings.TrimSpace(*pem) == strings.TrimSpace(old) {
				*pem, changed = fresh, true
			}
		}
	}
	if !changed {
		return nil
	}
	return config.Save(path)
}

// give has a node serve with its pair, and waits until it does.
func (r *renewCommand) give(ctx context.Context, store pki.Store, node string) error {
	ctx, cancel := context.WithTimeout(ctx, r.timeout)
	defer cancel()
	ca, err := store.Load(pki.CAName)
	if err != nil {
		return err
	}
	pair, err := store.Load(pki.NodeName(node))
	if err != nil {
		return err
	}
	known, err := r.contextOf(node)
	if err != nil {
		return err
	}
	known.ServingKey = pki.KeyFingerprint(pair.Certificate)
	c, err := client.Dial(known)
	if err != nil {
		return err
	}
	defer c.Close()
	k, err := c.Kind(ctx, certificatesType)
	if err != nil {
		return err
	}
	wanted, err := c.Get(ctx, k, "node")
	if err != nil {
		return err
	}
	if wanted.Spec, err = renewed(wanted.GetSpec(), ca, pair); err != nil {
		return err
	}
	_, now, err := c.Apply(ctx, k, wanted)
	if err != nil {
		return err
	}
	if err := c.Wait(ctx, k, "node", now.GetMetadata().GetVersion()); err != nil {
		return err
	}
	fmt.Fprintf(r.out, "%s serves with it\n", node)
	return nil
}

// contextOf returns the context that was asked for, or the first that names the node.
func (r *renewCommand) contextOf(node string) (client.Context, error) {
	config, _, err := r.config()
	if err != nil {
		return client.Context{}, err
	}
	names := config.Names()
	if r.contextName != "" {
		names = []string{r.contextName}
	}
	for _, name := range names {
		c, err := config.Context(name)
		if err != nil {
			return client.Context{}, err
		}
		if c.Node == node && c.Fingerprint == "" {
			known := *c
			if r.endpoint != "" {
				known.Endpoint = r.endpoint
			}
			return known, nil
		}
	}
	return client.Context{}, fmt.Errorf("no context names it: 'cosictl context add %s --endpoint ADDRESS --client NAME' adds one", node)
}

// renewed returns the content of Certificates with another pair, and the CA, wherever it is trusted, as it is now.
func renewed(old *resourcepb.Spec, ca, pair *pki.Pair) (*resourcepb.Spec, error) {
	c := &machinepb.Certificates{}
	if err := proto.Unmarshal(old.GetProtoSpec(), c); err != nil {
		return nil, err
	}
	c.ServingCertificate, c.ServingKey = string(pair.CertPEM), string(pair.KeyPEM)
	for i, text := range c.ClientCas {
		if ca.SameKey([]byte(text)) {
			c.ClientCas[i] = string(ca.CertPEM)
		}
	}
	content, err := proto.Marshal(c)
	return &resourcepb.Spec{ProtoSpec: content}, err
}
