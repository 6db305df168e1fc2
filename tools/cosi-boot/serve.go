package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/cosi-os/cosi/tools/cosi-boot/internal/admin"
	"github.com/cosi-os/cosi/tools/cosi-boot/internal/dhcp"
	"github.com/cosi-os/cosi/tools/internal/commandline"
)

// options are what the flags of serve say.
type options struct {
	link     string
	machines string
	dhcp     string
	router   string
	dns      []string
	http     uint16
	https    uint16
	tftp     bool
	firmware string
	cert     string
	key      string
	admin    string
	state    string
	tree     string
	routed   bool
}

// defaultAdmin is where the page is, if nothing else is said.
const defaultAdmin = "127.0.0.1:8068"

func serveCommand() *cobra.Command {
	o := options{}
	cmd := &cobra.Command{
		Use:   "serve --interface NAME --machines FILE",
		Short: "Serve the machines on a network",
		Long: `Serves the machines on the network of an interface, as a file says: which boots what image, with which arguments of the kernel and what user data.

  default: {image: build/cosi-base-amd64}       # the PXE set of make image, without its suffixes
  machines:
    - {mac: "52:54:00:12:34:56", user_data: a.yaml}
    - {serial: XYZ123, image: "sha256:…", arguments: [console=ttyS1]}   # or uuid; all that are given have to be the machine's

It binds, on the interface or its address: DHCP (67; 4011 beside another server), TFTP (69), HTTP and HTTPS; and the page on the loopback. Ports below 1024
take root or CAP_NET_BIND_SERVICE (setcap cap_net_bind_service+ep cosi-boot); on kernels before 5.7 DHCP takes CAP_NET_RAW, too. Nothing else does.

User data goes over HTTPS, to the machine with the MAC address; a UUID and a serial number are believed. Whoever may be on the network of the machines
can say them, and can take a MAC address: that network has to be trusted, or user data hold no secrets (cosictl gen user-data --self-signed).`,
		Example: `  cosi-boot serve --interface eth0 --machines machines.yaml
  cosi-boot serve --interface eth1 --machines machines.yaml --dhcp 10.0.0.100-10.0.0.199`,
		Args: commandline.Arguments(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := o.prepare(logger(cmd.ErrOrStderr()))
			if err != nil {
				return err
			}
			return s.serve(cmd.Context(), cmd.OutOrStdout())
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.link, "interface", "", "`name` of the interface on the machines' network")
	f.StringVar(&o.machines, "machines", "", "`file` that says what boots what")
	f.StringVar(&o.dhcp, "dhcp", "proxy", "`proxy` beside a DHCP server that is there, FIRST-LAST to give these addresses, or off")
	f.StringVar(&o.router, "router", "", "`address` of the router that DHCP tells of")
	f.StringSliceVar(&o.dns, "dns", nil, "`addresses` of name servers that DHCP tells of")
	f.Uint16Var(&o.http, "http", 8080, "`port` for HTTP")
	f.Uint16Var(&o.https, "https", 8443, "`port` for HTTPS")
	f.BoolVar(&o.tftp, "tftp", true, "serve TFTP, which firmware needs that does not boot by HTTP")
	f.StringVar(&o.firmware, "http-boot", "http", "`http or https` for firmware that boots by HTTP; it has to know the certificate")
	f.StringVar(&o.cert, "certificate", "", "PEM `file` with the certificate for HTTPS (default: one is made)")
	f.StringVar(&o.key, "key", "", "PEM `file` with its key")
	f.StringVar(&o.admin, "admin", defaultAdmin, "loopback `address` of the page and the list")
	f.StringVar(&o.state, "state", "", "`directory` for leases, the certificate and images (default $STATE_DIRECTORY, or cosi-boot in $XDG_STATE_HOME or ~/.local/state)")
	f.StringVar(&o.tree, "tree", "", "source tree (`directory` with go.mod) that posted definitions are built from")
	f.BoolVar(&o.routed, "routed", false, "give user data to machines behind a router, whose MAC addresses cannot be seen")
	_ = cmd.RegisterFlagCompletionFunc("interface", completeInterfaces) // these fail only for an unknown flag
	_ = cmd.RegisterFlagCompletionFunc("dhcp", cobra.FixedCompletions([]string{"proxy", "off"}, cobra.ShellCompDirectiveNoFileComp))
	_ = cmd.RegisterFlagCompletionFunc("http-boot", cobra.FixedCompletions([]string{"http", "https"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func completeInterfaces(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	all, _ := net.Interfaces()
	var names []string
	for _, i := range all {
		names = append(names, i.Name)
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// sense finds what no server can be made of.
func (o *options) sense() error {
	switch {
	case o.link == "":
		return errors.New("say on which interface, with --interface NAME")
	case o.machines == "":
		return errors.New("say what boots what, with --machines FILE")
	case o.firmware != "http" && o.firmware != "https":
		return fmt.Errorf("--http-boot %s: must be http or https", o.firmware)
	case (o.cert == "") != (o.key == ""):
		return errors.New("--certificate and --key go together")
	case o.http == o.https && o.http != 0:
		return fmt.Errorf("--http and --https are both %d", o.http)
	}
	address, err := netip.ParseAddrPort(o.admin)
	if err != nil || !admin.Local(address.Addr().String()) {
		return fmt.Errorf("--admin %s: must be an address of the loopback with a port, as %s: whoever reaches it may do everything (from elsewhere: ssh -L)", o.admin, defaultAdmin)
	}
	return nil
}

// stateDir is the directory for what outlives the server. It is made.
func (o *options) stateDir() (string, error) {
	dir := o.state
	if dir == "" {
		dir = os.Getenv("STATE_DIRECTORY")
	}
	if dir == "" {
		parent := os.Getenv("XDG_STATE_HOME")
		if parent == "" {
			home, err := os.UserHomeDir()
			if err != nil {
				return "", fmt.Errorf("%w; say where to keep things, with --state", err)
			}
			parent = filepath.Join(home, ".local/state")
		}
		dir = filepath.Join(parent, "cosi-boot")
	}
	return dir, os.MkdirAll(dir, 0o700)
}

// address finds the interface and its address.
func (o *options) address() (*net.Interface, netip.Prefix, error) {
	link, err := net.InterfaceByName(o.link)
	if err != nil {
		names, _ := completeInterfaces(nil, nil, "")
		return nil, netip.Prefix{}, fmt.Errorf("interface %s: there is none of this name (%s)", o.link, strings.Join(names, ", "))
	}
	all, err := link.Addrs()
	if err != nil {
		return nil, netip.Prefix{}, fmt.Errorf("interface %s: %w", o.link, err)
	}
	for _, a := range all {
		if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().Is4() {
			return link, p, nil
		}
	}
	return nil, netip.Prefix{}, fmt.Errorf("interface %s: has no IPv4 address", o.link)
}

// addressing reads how DHCP is served; pool is nil for a proxy.
func (o *options) addressing(network netip.Prefix) (pool *dhcp.Range, router netip.Addr, dns []netip.Addr, err error) {
	if o.dhcp != "proxy" {
		r, err := dhcp.ParseRange(o.dhcp, network)
		if err != nil {
			return nil, router, nil, fmt.Errorf("--dhcp: %w", err)
		}
		pool = &r
	}
	address := func(flag, text string) (netip.Addr, error) {
		a, err := netip.ParseAddr(text)
		if err != nil || !a.Is4() {
			return a, fmt.Errorf("--%s: %q is not an IPv4 address", flag, text)
		}
		return a, nil
	}
	if o.router != "" {
		if router, err = address("router", o.router); err != nil {
			return nil, router, nil, err
		}
	}
	for _, text := range o.dns {
		a, err := address("dns", text)
		if err != nil {
			return nil, router, nil, err
		}
		dns = append(dns, a)
	}
	if pool == nil && (router.IsValid() || dns != nil) {
		return nil, router, nil, errors.New("--router and --dns are for a server that gives addresses, with --dhcp FIRST-LAST")
	}
	return pool, router, dns, nil
}
