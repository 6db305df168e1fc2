package network

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var compare = cmp.Options{
	cmp.AllowUnexported(arguments{}, interfaceArgument{}, vlanArgument{}, problem{}),
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
	cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
}

func addrs(all ...string) []netip.Addr {
	var parsed []netip.Addr
	for _, a := range all {
		parsed = append(parsed, netip.MustParseAddr(a))
	}
	return parsed
}

func TestParseCmdline(t *testing.T) {
	static := interfaceArgument{name: "eth0", address: netip.MustParsePrefix("192.0.2.10/24"), gateway: netip.MustParseAddr("192.0.2.1")}
	with := func(change func(*interfaceArgument)) []interfaceArgument {
		i := static
		change(&i)
		return []interfaceArgument{i}
	}
	for _, test := range []struct {
		line string
		want arguments
	}{
		{"console=ttyS0 quiet\n", arguments{}},
		{"ip=dhcp", arguments{interfaces: []interfaceArgument{{dhcp: true}}}},
		{"ip=on", arguments{interfaces: []interfaceArgument{{dhcp: true}}}},
		{"ip=off", arguments{}},
		{"ip=auto6", arguments{}},
		{"ip=eth0:dhcp", arguments{interfaces: []interfaceArgument{{name: "eth0", dhcp: true}}}},
		{"ip=eth0:dhcp:1400", arguments{interfaces: []interfaceArgument{{name: "eth0", dhcp: true, mtu: 1400}}}},
		{"ip=eth0:auto6", arguments{interfaces: []interfaceArgument{{name: "eth0"}}}},
		{"ip=::::host:eth0:dhcp", arguments{interfaces: []interfaceArgument{{name: "eth0", dhcp: true}}}},
		{"ip=192.0.2.10::192.0.2.1:255.255.255.0:host:eth0:none", arguments{interfaces: []interfaceArgument{static}}},
		{"ip=192.0.2.10:192.0.2.5:192.0.2.1:24::eth0:off", arguments{interfaces: []interfaceArgument{static}}},
		{`ip="192.0.2.10::192.0.2.1:24:my host:eth0:none" x`, arguments{interfaces: []interfaceArgument{static}}},
		{"ip=192.0.2.10::192.0.2.1:24::eth0", arguments{interfaces: []interfaceArgument{static}}},
		{"ip=192.0.2.10::192.0.2.1:24::eth0:none:9.9.9.9:[2620:fe::fe]", arguments{interfaces: with(func(i *interfaceArgument) { i.servers = addrs("9.9.9.9", "2620:fe::fe") })}},
		{"ip=192.0.2.10::192.0.2.1:24::eth0:none:1400", arguments{interfaces: with(func(i *interfaceArgument) { i.mtu = 1400 })}},
		{"ip=192.0.2.10::192.0.2.1:24:::", arguments{interfaces: with(func(i *interfaceArgument) { i.name = "" })}},
		{"ip=[2001:db8::10]::[2001:db8::1]:64::eth0:none", arguments{interfaces: with(func(i *interfaceArgument) {
			i.address, i.gateway = netip.MustParsePrefix("2001:db8::10/64"), netip.MustParseAddr("2001:db8::1")
		})}},
		{"vlan=eth0.10:eth0 vlan=vlan0020:eth1", arguments{vlans: []vlanArgument{{"eth0.10", "eth0", 10}, {"vlan0020", "eth1", 20}}}},
		{"nameserver=9.9.9.9 nameserver=[2620:fe::fe] nameserver=2620:fe::9", arguments{servers: addrs("9.9.9.9", "2620:fe::fe", "2620:fe::9")}},
	} {
		if diff := cmp.Diff(test.want, parseCmdline(test.line), compare); diff != "" {
			t.Errorf("%s (-want +got):\n%s", test.line, diff)
		}
	}
}

func TestBadArgumentsAreNamedAndTheRestCounts(t *testing.T) {
	for argument, words := range map[string]string{
		"ip=dhcpp":         "not a way to configure a link",
		"ip=eth0:dhcp6":    "not supported",
		"ip=eth0:dhcp:big": `"big" is not an MTU`,
		"ip=192.0.2.10":    "no netmask",
		"ip=192.0.2.10::192.0.2.1:255.0.255.0::eth0:none":  `"255.0.255.0" is not a netmask`,
		"ip=192.0.2.10::192.0.2.1:33::eth0:none":           `"33" is not a netmask`,
		"ip=192.0.2.10::192.0.2.x:24::eth0:none":           "gateway",
		"ip=192.0.2.10::[2001:db8::1]:24::eth0:none":       "two families",
		"ip=192.0.2.10::192.0.2.1:24::this-name-is-long:x": "not the name of a link",
		"ip=192.0.2.10::192.0.2.1:24::eth0:none:dns":       "neither the address of a name server nor an MTU",
		"ip=2001:db8::10":        "",
		"ip=:::::":               "neither an address nor a link",
		"vlan=eth0.10":           "want NAME:PARENT",
		"vlan=lan:eth0":          "does not end in a VLAN's number",
		"vlan=eth0.4095:eth0":    "does not end in a VLAN's number",
		"vlan=:eth0":             "not the name of a link",
		"nameserver=dns.example": "not the address of a host",
		"nameserver=":            "not the address of a host",
	} {
		got := parseCmdline("nameserver=9.9.9.9 " + argument + " vlan=a.1:a")
		if len(got.problems) != 1 || got.problems[0].argument != argument || !strings.Contains(got.problems[0].message, words) {
			t.Errorf("%s: problems = %v; want one that says %q", argument, got.problems, words)
		}
		if len(got.servers) != 1 || len(got.vlans) != 1 || len(got.interfaces) != 0 {
			t.Errorf("%s: %+v; want the good arguments and nothing of the bad one", argument, got)
		}
	}
}

func FuzzParseCmdline(f *testing.F) {
	f.Add("ip=192.0.2.10::192.0.2.1:255.255.255.0:host:eth0:none:9.9.9.9 vlan=eth0.10:eth0 nameserver=9.9.9.9")
	f.Add("ip=[2001:db8::10]::[2001:db8::1]:64::eth0:none ip=eth1:dhcp:1400 ip=dhcp")
	f.Add(`ip="a b":[::]]::"`)
	f.Fuzz(func(t *testing.T, line string) {
		a := parseCmdline(line)
		for _, i := range a.interfaces {
			if i.name != "" && checkName(i.name) != nil || i.name == "" && !i.dhcp && !i.address.IsValid() {
				t.Errorf("%+v", i)
			}
			if i.address.IsValid() && i.address.Bits() == 0 || i.gateway.IsValid() && i.gateway.Zone() != "" {
				t.Errorf("%+v", i)
			}
		}
		for _, v := range a.vlans {
			if checkName(v.name) != nil || checkName(v.parent) != nil || v.id < 1 || v.id > 4094 {
				t.Errorf("%+v", v)
			}
		}
	})
}
