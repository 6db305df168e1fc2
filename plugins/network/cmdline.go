package network

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	networkpb "github.com/cosi-os/cosi/api/cosi/network/v1alpha1"
)

// arguments is what the kernel's command line says about the network, in the words of dracut.cmdline(7). The zero value says
// nothing.
type arguments struct {
	interfaces []interfaceArgument
	vlans      []vlanArgument
	servers    []netip.Addr
	problems   []problem
}

// interfaceArgument is one ip=.
type interfaceArgument struct {
	// name is empty for ip=dhcp (every physical link) and for a static address without one (the first link with a carrier).
	name    string
	dhcp    bool
	address netip.Prefix
	gateway netip.Addr
	servers []netip.Addr
	mtu     int
}

// vlanArgument is one vlan=.
type vlanArgument struct {
	name, parent string
	id           int
}

// problem is an argument that cannot be used, in words. The rest of the command line counts nevertheless.
type problem struct {
	argument, message string
}

func (p problem) String() string { return fmt.Sprintf("kernel argument %s: %s", p.argument, p.message) }

// selector names the links that the argument is about.
func (a interfaceArgument) selector() *networkpb.LinkSelector {
	switch {
	case a.name != "":
		return byName(a.name)
	case a.dhcp:
		return allPhysical()
	}
	return firstWithCarrier()
}

// parseCmdline reads /proc/cmdline.
func parseCmdline(line string) arguments {
	var a arguments
	for _, word := range splitWords(line) {
		key, value, _ := strings.Cut(word, "=")
		var err error
		switch key {
		case "ip":
			err = a.addInterface(value)
		case "vlan":
			err = a.addVLAN(value)
		case "nameserver":
			var server netip.Addr
			if server, err = parseAddress(strings.Trim(value, "[]")); err == nil {
				a.servers = append(a.servers, server)
			}
		}
		if err != nil {
			a.problems = append(a.problems, problem{word, err.Error()})
		}
	}
	return a
}

// splitWords splits as the kernel does: at white space that does not stand between double quotes.
func splitWords(line string) []string {
	quoted := false
	words := strings.FieldsFunc(line, func(r rune) bool {
		if r == '"' {
			quoted = !quoted
		}
		return !quoted && (r == ' ' || r == '\t' || r == '\n')
	})
	for i := range words {
		words[i] = strings.ReplaceAll(words[i], `"`, "")
	}
	return words
}

// splitFields splits at colons that do not stand between brackets, and takes the brackets off.
func splitFields(value string) []string {
	depth := 0
	var fields []string
	var field strings.Builder
	for _, r := range value {
		switch {
		case r == '[':
			depth++
		case r == ']':
			depth--
		case r == ':' && depth <= 0:
			fields = append(fields, field.String())
			field.Reset()
		default:
			field.WriteRune(r)
		}
	}
	return append(fields, field.String())
}

// method is how a link gets its addresses.
type method int

const (
	methodStatic method = 1 // none, off, static, or nothing
	methodDHCP   method = 2 // dhcp, on, any
	methodKernel method = 3 // auto6, link6, link-local: the link comes up, the kernel does the rest
)

func parseMethod(word string) (method, error) {
	switch word {
	case "", "none", "off", "static":
		return methodStatic, nil
	case "dhcp", "on", "any", "single-dhcp":
		return methodDHCP, nil
	case "auto6", "link6", "link-local":
		return methodKernel, nil
	case "dhcp6", "either6", "ibft", "both":
		return 0, fmt.Errorf("%q is not supported (dhcp, auto6, none and off are)", word)
	}
	return 0, fmt.Errorf("%q is not a way to configure a link (dhcp, auto6, none and off are)", word)
}

// addInterface reads ip=METHOD, ip=IFACE:METHOD[:MTU] or ip=CLIENT:SERVER:GATEWAY:NETMASK:HOSTNAME:IFACE:METHOD[:DNS1[:DNS2]]. The
// server and the host name are not used.
func (a *arguments) addInterface(value string) error {
	fields := splitFields(value)
	_, addressErr := netip.ParseAddr(fields[0])
	switch {
	case len(fields) == 1 && addressErr != nil:
		m, err := parseMethod(value)
		if err == nil && m == methodDHCP {
			a.interfaces = append(a.interfaces, interfaceArgument{dhcp: true})
		}
		return err
	case fields[0] != "" && addressErr != nil:
		return a.addShort(fields)
	}
	return a.addLong(fields)
}

func (a *arguments) addShort(fields []string) error {
	i := interfaceArgument{name: fields[0]}
	if err := checkName(i.name); err != nil {
		return err
	}
	m, err := parseMethod(fields[1])
	if err != nil {
		return err
	}
	i.dhcp = m == methodDHCP
	if len(fields) > 2 && fields[2] != "" {
		if i.mtu, err = parseMTU(fields[2]); err != nil {
			return err
		}
	}
	a.interfaces = append(a.interfaces, i)
	if len(fields) > 3 && strings.Join(fields[3:], "") != "" {
		return errors.New("setting a MAC address is not supported; the rest is used")
	}
	return nil
}

func (a *arguments) addLong(fields []string) error {
	const client, gateway, netmask, iface, how, rest = 0, 2, 3, 5, 6, 7
	fields = append(fields, make([]string, max(0, rest-len(fields)))...)
	i := interfaceArgument{name: fields[iface]}
	if err := checkName(i.name); i.name != "" && err != nil {
		return err
	}
	m, err := parseMethod(fields[how])
	if err != nil {
		return err
	}
	i.dhcp = m == methodDHCP
	if fields[client] != "" && !i.dhcp {
		if i.address, err = parsePrefix(fields[client], fields[netmask]); err != nil {
			return err
		}
	} else if i.name == "" && !i.dhcp {
		return errors.New("neither an address nor a link")
	}
	if fields[gateway] != "" && !i.dhcp {
		if i.gateway, err = parseAddress(fields[gateway]); err != nil {
			return fmt.Errorf("gateway: %w", err)
		}
		if i.address.IsValid() && i.gateway.Is4() != i.address.Addr().Is4() {
			return fmt.Errorf("gateway %v and address %v are of two families", i.gateway, i.address.Addr())
		}
	}
	if err := i.addRest(fields[rest:]); err != nil {
		return err
	}
	a.interfaces = append(a.interfaces, i)
	return nil
}

// addRest reads what may follow the method: name servers, or an MTU and a MAC address.
func (i *interfaceArgument) addRest(fields []string) error {
	for n, field := range fields {
		if field == "" {
			continue
		}
		if server, err := parseAddress(field); err == nil {
			i.servers = append(i.servers, server)
			continue
		}
		mtu, err := parseMTU(field)
		if n != 0 || err != nil {
			return fmt.Errorf("%q is neither the address of a name server nor an MTU", field)
		}
		i.mtu = mtu
		if strings.Join(fields[1:], "") != "" {
			return errors.New("setting a MAC address is not supported")
		}
		return nil
	}
	return nil
}

// addVLAN reads vlan=NAME:PARENT. The number at the end of the name is the VLAN's: eth0.10, vlan10, vlan0010.
func (a *arguments) addVLAN(value string) error {
	name, parent, ok := strings.Cut(value, ":")
	if !ok {
		return errors.New("want NAME:PARENT, as in vlan=eth0.10:eth0")
	}
	if err := errors.Join(checkName(name), checkName(parent)); err != nil {
		return err
	}
	digits := name[len(strings.TrimRight(name, "0123456789")):]
	id, err := strconv.Atoi(digits)
	if err != nil || id < 1 || id > 4094 {
		return fmt.Errorf("%q does not end in a VLAN's number (1 to 4094)", name)
	}
	a.vlans = append(a.vlans, vlanArgument{name, parent, id})
	return nil
}

// checkName holds a name to what the kernel takes for a link (dev_valid_name).
func checkName(name string) error {
	if name == "" || len(name) > 15 || name == "." || name == ".." || strings.ContainsAny(name, "/: \t\n\v\f\r") {
		return fmt.Errorf("%q is not the name of a link", name)
	}
	return nil
}

func parseAddress(s string) (netip.Addr, error) {
	address, err := netip.ParseAddr(s)
	if err != nil || address.Zone() != "" || address.IsUnspecified() || address.IsMulticast() {
		return netip.Addr{}, fmt.Errorf("%q is not the address of a host", s)
	}
	return address.Unmap(), nil
}

// parsePrefix takes a netmask as 255.255.255.0 or as the length of the prefix.
func parsePrefix(address, netmask string) (netip.Prefix, error) {
	a, err := parseAddress(address)
	if err != nil {
		return netip.Prefix{}, err
	}
	if netmask == "" {
		return netip.Prefix{}, fmt.Errorf("%s has no netmask (as in ip=192.0.2.10::192.0.2.1:255.255.255.0::eth0:none)", address)
	}
	ones, err := strconv.Atoi(netmask)
	if mask := net.ParseIP(netmask).To4(); a.Is4() && err != nil && mask != nil {
		var bits int
		if ones, bits = net.IPMask(mask).Size(); bits == 0 {
			return netip.Prefix{}, fmt.Errorf("%q is not a netmask", netmask)
		}
		err = nil
	}
	if err != nil || ones < 1 || ones > a.BitLen() {
		return netip.Prefix{}, fmt.Errorf("%q is not a netmask", netmask)
	}
	return netip.PrefixFrom(a, ones), nil
}

func parseMTU(s string) (int, error) {
	mtu, err := strconv.Atoi(s)
	if err != nil || mtu < 68 || mtu > 65536 {
		return 0, fmt.Errorf("%q is not an MTU", s)
	}
	return mtu, nil
}
