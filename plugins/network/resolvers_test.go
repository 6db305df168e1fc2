package network

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/cosi-os/cosi/plugins/network/dhcp"
)

func TestResolverContent(t *testing.T) {
	r := &resolver{}
	r.add("static", addrs("9.9.9.9", "2620:fe::fe"), []string{"example.org", "bad name\nnameserver 6.6.6.6"})
	r.add("cmdline", nil, nil)
	r.add("dhcp", addrs("9.9.9.9", "192.0.2.53", "192.0.2.54"), []string{"example.org", "a.example", "b.example", "c.example", "d.example", "e.example", "f.example"})
	want := "nameserver 9.9.9.9\nnameserver 2620:fe::fe\nnameserver 192.0.2.53\n" +
		"search example.org a.example b.example c.example d.example e.example\n"
	if got := string(r.content()); got != want {
		t.Errorf("content = %q; want %q", got, want)
	}
	if want := []string{"static", "dhcp"}; !slices.Equal(r.sources, want) {
		t.Errorf("sources = %v; want %v", r.sources, want)
	}
	servers, search := parseResolver(want)
	again := &resolver{}
	again.add("dhcp", servers, search)
	if got := string(again.content()); got != want {
		t.Errorf("read and written again: %q; want %q", got, want)
	}
}

func TestResolverOfAnEarlierLeaseIsKeptForAWhile(t *testing.T) {
	n := newNetwork()
	n.resolvConf = filepath.Join(t.TempDir(), "resolv.conf")
	must(t, os.WriteFile(n.resolvConf, []byte("nameserver 192.0.2.53\nsearch example.org\n"), 0o644))
	p := n.newPass(inputs{})
	p.leased[2] = &leased{status: dhcp.Status{Keep: true}}
	p.setResolvers()
	if got, _ := os.ReadFile(n.resolvConf); string(got) != "nameserver 192.0.2.53\nsearch example.org\n" {
		t.Errorf("while the lease is not confirmed: %q; want the old contents", got)
	}
	p.leased[2].status.Keep = false
	p.setResolvers()
	if got, _ := os.ReadFile(n.resolvConf); len(got) != 0 {
		t.Errorf("afterwards: %q; want nothing", got)
	}
}

func TestResolverIsReplacedWhole(t *testing.T) {
	name := filepath.Join(t.TempDir(), "resolv.conf")
	must(t, writeResolver(name, nil))
	if _, err := os.Stat(name); err == nil {
		t.Error("an empty file was made; want none")
	}
	must(t, writeResolver(name, []byte("nameserver 9.9.9.9\n")))
	before, err := os.Stat(name)
	must(t, err)
	must(t, writeResolver(name, []byte("nameserver 9.9.9.9\n")))
	if after, _ := os.Stat(name); !os.SameFile(before, after) {
		t.Error("the same contents were written again")
	}
	must(t, writeResolver(name, []byte("nameserver 192.0.2.53\n")))
	after, err := os.Stat(name)
	must(t, err)
	if os.SameFile(before, after) || after.Mode().Perm() != 0o644 {
		t.Errorf("mode %v, same file %v; want a new file, 0644", after.Mode(), os.SameFile(before, after))
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(name), ".*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	if err := writeResolver(filepath.Join(filepath.Dir(name), "none", "resolv.conf"), []byte("x")); err == nil {
		t.Error("no error for a folder that is not there")
	}
}
