package main

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/cosi-os/cosi/tools/client"
	"github.com/cosi-os/cosi/tools/internal/commandline"
	"github.com/cosi-os/cosi/tools/pki"
)

const dirUsage = "`directory` with keys and certificates (default $XDG_CONFIG_HOME/cosi/pki)"

// store is where keys and certificates are kept.
func (a *app) store(dir string) (pki.Store, error) {
	if dir != "" {
		return pki.Store{Dir: dir}, nil
	}
	config, err := client.ConfigDir()
	return pki.Store{Dir: filepath.Join(config, "pki")}, err
}

func (a *app) maker() pki.Maker { return pki.Maker{Now: a.now(), Rand: a.rand} }

// genCommand is what the gen commands share.
type genCommand struct {
	*app
	dir   string
	force bool
}

func newGen(a *app) *cobra.Command {
	g := &genCommand{app: a}
	cmd := &cobra.Command{
		Use:   "gen",
		Short: "Make keys, certificates and user data",
		Long: `Make keys, certificates and user data.

The CA's key stays in the directory of this program: neither a node nor its user data ever holds it.`,
		Example: `  cosictl gen ca
  cosictl gen client me --role admin
  cosictl gen user-data lab1 -o user-data.yaml
  cosictl context add lab1 --endpoint 192.0.2.10 --client me`,
	}
	commandline.Group(cmd)
	cmd.PersistentFlags().StringVar(&g.dir, "dir", "", dirUsage)
	cmd.AddCommand(newGenCA(g), newGenNode(g), newGenClient(g), newGenUserData(g), newGenRenew(g))
	return cmd
}

func newGenCA(g *genCommand) *cobra.Command {
	name := "cosi"
	cmd := &cobra.Command{
		Use:   "ca",
		Short: "Make the CA of nodes and clients",
		Args:  commandline.Arguments(0, 0),
		RunE: func(*cobra.Command, []string) error {
			_, err := g.make(pki.CAName, func(*pki.Pair) (*pki.Pair, error) { return g.maker().CA(name) })
			return err
		},
	}
	cmd.Flags().StringVar(&name, "name", name, "`name` in the certificate")
	g.addForce(cmd)
	return cmd
}

func newGenNode(g *genCommand) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "node NAME",
		Short: "Make the serving pair of a node",
		Long:  "Make the serving pair of a node, for its name: clients verify that name whatever address they dial.",
		Args:  commandline.Arguments(1, 1),
		RunE: func(_ *cobra.Command, args []string) error {
			_, err := g.make(pki.NodeName(args[0]), func(ca *pki.Pair) (*pki.Pair, error) { return g.maker().Node(ca, args[0]) })
			return err
		},
	}
	g.addForce(cmd)
	return cmd
}

func newGenClient(g *genCommand) *cobra.Command {
	role := string(pki.RoleAdmin)
	cmd := &cobra.Command{
		Use:   "client NAME",
		Short: "Make the pair of a client with a role",
		Args:  commandline.Arguments(1, 1),
		RunE: func(_ *cobra.Command, args []string) error {
			parsed, err := pki.ParseRole(role)
			if err != nil {
				return commandline.Usage(err)
			}
			_, err = g.make(pki.ClientName(args[0]), func(ca *pki.Pair) (*pki.Pair, error) { return g.maker().Client(ca, args[0], parsed) })
			if err == nil && !parsed.BuiltIn() {
				fmt.Fprintf(g.out, "%s is none of admin, operator and reader: a node lets %s in once one of its Roles names that organisation ('cosictl explain role')\n", role, args[0])
			}
			return err
		},
	}
	cmd.Flags().StringVar(&role, "role", role, "`role`: admin, operator, reader, or an organisation that a Role of the node names")
	_ = cmd.RegisterFlagCompletionFunc("role", cobra.FixedCompletions([]string{"admin", "operator", "reader"}, cobra.ShellCompDirectiveNoFileComp))
	g.addForce(cmd)
	return cmd
}

func (g *genCommand) addForce(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&g.force, "force", false, "replace a pair that is there")
}

// make makes a pair, keeps it and prints until when it is valid. One that is there is left alone without --force: what was signed with
// it would not be worth anything any more.
func (g *genCommand) make(name string, f func(ca *pki.Pair) (*pki.Pair, error)) (*pki.Pair, error) {
	store, err := g.store(g.dir)
	if err != nil {
		return nil, err
	}
	if _, err := store.Load(name); !g.force && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s is there already ('cosictl gen renew' renews it, --force replaces it)", store.CertFile(name))
	}
	var ca *pki.Pair
	if name != pki.CAName {
		if ca, err = g.authority(store); err != nil {
			return nil, err
		}
	}
	p, err := f(ca)
	if err != nil {
		return nil, commandline.Usage(err)
	}
	if err := store.Save(name, p); err != nil {
		return nil, err
	}
	fmt.Fprintf(g.out, "%s  valid until %s\n", store.CertFile(name), expiry(p, g.now()))
	return p, nil
}

func (g *genCommand) authority(store pki.Store) (*pki.Pair, error) {
	ca, err := store.Load(pki.CAName)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: there is no CA yet: 'cosictl gen ca' makes one", store.CertFile(pki.CAName))
	}
	if err == nil && ca.Expired(g.now()) {
		return nil, fmt.Errorf("%s has expired: 'cosictl gen renew ca' renews it", store.CertFile(pki.CAName))
	}
	return ca, err
}

// expiry says until when a pair is valid: "2027-03-04 (365 days)".
func expiry(p *pki.Pair, now time.Time) string {
	left := p.Certificate.NotAfter.Sub(now)
	date := p.Certificate.NotAfter.Format(time.DateOnly)
	if left < 0 {
		return date + " (expired)"
	}
	return fmt.Sprintf("%s (%s)", date, plural(int(left/(24*time.Hour)), "day"))
}
