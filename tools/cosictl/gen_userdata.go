package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	machinepb "github.com/cosi-os/cosi/api/cosi/machine/v1alpha1"
	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	"github.com/cosi-os/cosi/api/kinds"
	"github.com/cosi-os/cosi/api/kinds/builtin"
	"github.com/cosi-os/cosi/tools/internal/commandline"
	"github.com/cosi-os/cosi/tools/pki"
)

const certificatesType = "Certificates.machine.cosi.dev"

type userData struct {
	*genCommand
	files      []string
	out        string
	selfSigned bool
}

func newGenUserData(g *genCommand) *cobra.Command {
	u := &userData{genCommand: g}
	cmd := &cobra.Command{
		Use:   "user-data NAME",
		Short: "Write the user data of a node",
		Long: `Write the user data of a node: its Certificates, and more documents from files.

The node's serving pair is made if there is none. With --self-signed the user data holds no secret: the node makes its own pair, keeps
it on its disk and shows its fingerprint on the console, for "cosictl trust".

A file that is there is left alone: it may hold a key that a node has, or what somebody has written into it.`,
		Example: `  cosictl gen user-data lab1 -o user-data.yaml
  cosictl gen user-data lab1 -f network.yaml -f mounts/ -o user-data.yaml`,
		Args: commandline.Arguments(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error { return u.run(cmd.Context(), args[0]) },
	}
	cmd.Flags().StringArrayVarP(&u.files, "filename", "f", nil, "`file`, directory or - with more documents (repeat for more)")
	cmd.Flags().StringVarP(&u.out, "output", "o", "", "`file` to write instead of the standard output")
	cmd.Flags().BoolVar(&u.force, "force", false, "replace a file that is there")
	cmd.Flags().BoolVar(&u.selfSigned, "self-signed", false, "let the node make its own serving pair")
	return cmd
}

func (u *userData) run(ctx context.Context, node string) error {
	if _, err := os.Lstat(u.out); err == nil && !u.force {
		return fmt.Errorf("%s is there already (--force replaces it)", u.out)
	}
	set := builtin.Set()
	certificates, err := u.certificates(set, node)
	if err != nil {
		return err
	}
	items := []*item{certificates}
	if len(u.files) > 0 {
		more, err := u.read(ctx, u.files, func(_ context.Context, name string) (*kinds.Kind, error) { return set.Lookup(name) })
		if err != nil {
			return err
		}
		items = append(items, more...)
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "# User data of the node %s.\n", node)
	for n, i := range items {
		if n > 0 {
			b.WriteString("---\n")
		}
		if err := writeYAML(&b, i.kind, i.resource); err != nil {
			return err
		}
	}
	if u.out == "" {
		_, err := u.app.out.Write(b.Bytes())
		return err
	}
	return pki.WriteFile(u.out, b.Bytes(), 0o600)
}

func (u *userData) certificates(set *kinds.Set, node string) (*item, error) {
	store, err := u.store(u.dir)
	if err != nil {
		return nil, err
	}
	ca, err := u.authority(store)
	if err != nil {
		return nil, err
	}
	spec := &machinepb.Certificates{ClientCas: []string{string(ca.CertPEM)}}
	if !u.selfSigned {
		pair, err := u.serving(store, ca, node)
		if err != nil {
			return nil, err
		}
		spec.ServingCertificate, spec.ServingKey = string(pair.CertPEM), string(pair.KeyPEM)
	}
	data, err := proto.MarshalOptions{Deterministic: true}.Marshal(spec)
	if err != nil {
		return nil, err
	}
	k, err := set.Lookup(certificatesType)
	if err != nil {
		return nil, err
	}
	return &item{kind: k, resource: &resourcepb.Resource{
		Metadata: &resourcepb.Metadata{Namespace: k.Namespace(), Type: k.Type(), Id: "node"}, Spec: &resourcepb.Spec{ProtoSpec: data},
	}}, nil
}

// serving returns the node's pair, made if there is none. What it says goes beside the user data, which may go to the standard output.
func (u *userData) serving(store pki.Store, ca *pki.Pair, node string) (*pki.Pair, error) {
	pair, err := store.Load(pki.NodeName(node))
	if errors.Is(err, fs.ErrNotExist) {
		if pair, err = u.maker().Node(ca, node); err != nil {
			return nil, commandline.Usage(err)
		}
		err = store.Save(pki.NodeName(node), pair)
	}
	if err != nil {
		return nil, err
	}
	fmt.Fprintf(u.err, "%s  valid until %s\n", store.CertFile(pki.NodeName(node)), expiry(pair, u.now()))
	return pair, nil
}
