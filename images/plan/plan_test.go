package plan

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/cosi-os/cosi/api/declaration"
	"github.com/cosi-os/cosi/images/definition"
	"github.com/cosi-os/cosi/kernel"
	"github.com/cosi-os/cosi/kernel/kerneltest"
	"github.com/cosi-os/cosi/kernel/lock"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func load(t *testing.T, name string) (*definition.Definition, *lock.Lock) {
	t.Helper()
	d, err := definition.Load(filepath.Join("testdata", name), "")
	if err != nil {
		t.Fatal(err)
	}
	l, err := lock.Load("testdata/lock.yaml")
	if err != nil {
		t.Fatal(err)
	}
	return d, l
}

// known is all there is to know: a kernel, plugins that ask for modules, programs that were compiled.
func known(t *testing.T) Known {
	t.Helper()
	dir := kerneltest.Tree(t, "kernel/fs/ext4/ext4.ko\nkernel/fs/fuse.ko\n", map[string][]byte{
		"net/virtio_net.ko":        kerneltest.Module(t, "depends=net_failover"),
		"net/net_failover.ko":      kerneltest.Module(t, "depends=failover"),
		"net/failover.ko":          kerneltest.Module(t),
		"fs/xfs.ko":                kerneltest.Module(t, "depends=libcrc32c"),
		"fs/erofs.ko":              kerneltest.Module(t, "depends=libcrc32c"),
		"lib/libcrc32c.ko":         kerneltest.Module(t, "softdep=pre: crc32c crc32c_generic"),
		"crypto/crc32c_generic.ko": kerneltest.Module(t),
		"block/loop.ko":            kerneltest.Module(t),
		"input/evdev.ko":           kerneltest.Module(t),
	})
	tree, err := kernel.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return Known{
		Kernel: tree, Mounting: []string{"erofs"}, Programs: map[string]int64{"usr/bin/engine": 4_321_000},
		Declarations: []*declaration.Declaration{{Name: "mount", Modules: []string{"xfs", "fuse"}}, {Name: "power", Modules: []string{"evdev"}}},
	}
}

func TestAPlanReadsLikeThis(t *testing.T) {
	for name, k := range map[string]Known{"small": {}, "whole": known(t)} {
		t.Run(name, func(t *testing.T) {
			d, l := load(t, name+".yaml")
			p, err := New(d, l)
			if err != nil {
				t.Fatal(err)
			}
			e, err := p.Explain(k)
			if err != nil {
				t.Fatal(err)
			}
			golden := filepath.Join("testdata", name+".golden")
			if *update {
				if err := os.WriteFile(golden, []byte(e.String()), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if e.String() != string(want) {
				t.Errorf("the plan reads\n%s\nwant\n%s", e, want)
			}
		})
	}
}

// Nothing is in an image that nobody asked for.
func TestEverythingHasAReason(t *testing.T) {
	d, l := load(t, "whole.yaml")
	p, err := New(d, l)
	if err != nil {
		t.Fatal(err)
	}
	e, err := p.Explain(known(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range e.Sections {
		for _, item := range s.Items {
			if len(item.Why) == 0 || slices.Contains(item.Why, "") || slices.Contains(item.Why, ":0") {
				t.Errorf("%s %s is there because of %q", s.Name, item.Name, item.Why)
			}
		}
	}
}

// What is built into our own kernel makes no links, unless a definition asks for them. Debian's has modules for that.
func TestOurOwnKernelMakesNoLinks(t *testing.T) {
	d, l := load(t, "whole.yaml")
	d.Kernel.Flavour = "own"
	d.Kernel.Arguments = append(d.Kernel.Arguments, "bonding.max_bonds=2")
	p, err := New(d, l)
	if err != nil {
		t.Fatal(err)
	}
	want := "rootfstype=ramfs dummy.numdummies=0 fb_tunnels=none console=ttyS0 panic=30 bonding.max_bonds=2 cosi.state_mib=512 cosi.state_seal=never"
	if p.CommandLine != want {
		t.Errorf("the command line is %q; want %q", p.CommandLine, want)
	}
	for _, item := range p.explainArguments() {
		if ours := strings.HasPrefix(item.Name, "dummy.") || strings.HasPrefix(item.Name, "fb_"); ours != strings.HasPrefix(item.Why[0], "without it") {
			t.Errorf("%s is there because of %q", item.Name, item.Why)
		}
	}
	d.Kernel.Flavour = "metal"
	if p, err = New(d, l); err != nil || strings.Contains(p.CommandLine, "fb_tunnels") {
		t.Errorf("Debian's is told %q, %v", p.CommandLine, err)
	}
}

func TestAModuleThatTheKernelLacksIsNamed(t *testing.T) {
	d, l := load(t, "whole.yaml")
	p, err := New(d, l)
	if err != nil {
		t.Fatal(err)
	}
	k := known(t)
	k.Declarations[1].Modules = []string{"nonesuch"}
	d.Kernel.Modules.Ship = append(d.Kernel.Modules.Ship, "xfz")
	_, err = p.Explain(k)
	if !errors.Is(err, kernel.ErrUnknownModule) || !errors.As(err, &definition.Problems{}) {
		t.Errorf("Explain = %v; want ErrUnknownModule and Problems", err)
	}
	for _, want := range []string{"plugin power: modules: nonesuch: no such module in Linux 6.12.1-test", "kernel.modules.ship: xfz: no such module in Linux 6.12.1-test; did you mean \"xfs\"?"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Explain = %v; want %q", err, want)
		}
	}
}

func TestPluginsGetTheirIDsByName(t *testing.T) {
	d, l := load(t, "whole.yaml")
	first, err := New(d, l)
	if err != nil {
		t.Fatal(err)
	}
	slices.Reverse(d.Plugins)
	second, err := New(d, l)
	if err != nil || !reflect.DeepEqual(first.Plugins, second.Plugins) {
		t.Errorf("in another order: %v, %v; want %v", second.Plugins, err, first.Plugins)
	}
}

func TestOnlyWhatIsAskedForIsMade(t *testing.T) {
	d, l := load(t, "small.yaml")
	p, err := New(d, l)
	if err != nil {
		t.Fatal(err)
	}
	if len(p.Outputs) != 1 || !p.Writes(".qcow2") || p.Writes(".raw") {
		t.Errorf("the outputs are %v; want one qcow2", p.Outputs)
	}
	for _, output := range definition.Outputs {
		d.Outputs = []definition.Output{output}
		if p, err = New(d, l); err != nil {
			t.Fatal(err)
		}
		loaders, network := 1, 0 // of disks and CDs
		switch output {
		case definition.PXE:
			loaders, network = 0, 1
		case definition.UKI, definition.Direct:
			loaders = 0
		}
		if len(p.Loader) != loaders || len(p.Network) != network || len(p.Packages()) != 3+loaders+network {
			t.Errorf("for %s, %d loaders, %d for the network and %d packages are fetched; want %d, %d and %d",
				output, len(p.Loader), len(p.Network), len(p.Packages()), loaders, network, 3+loaders+network)
		}
	}
}

// Every output is one of files, each of which is written once, whoever asks for it.
func TestOutputsShareFiles(t *testing.T) {
	d, l := load(t, "small.yaml")
	d.Outputs = definition.Outputs
	p, err := New(d, l)
	if err != nil {
		t.Fatal(err)
	}
	var files []string
	for _, o := range p.Outputs {
		files = append(files, o.File)
	}
	slices.Sort(files)
	if got := slices.Compact(slices.Clone(files)); len(got) != len(files) {
		t.Errorf("some of %q are written twice", files)
	}
	for _, kind := range definition.Outputs {
		if len(suffixes[kind]) == 0 || !slices.Contains(order, kind) {
			t.Errorf("%s has no file, or no place in the order", kind)
		}
		for _, suffix := range suffixes[kind] {
			if !p.Writes(suffix) {
				t.Errorf("with all outputs, the %s of %s is not written", suffix, kind)
			}
		}
	}
}

func TestAnArchitectureWithoutPackagesIsRefused(t *testing.T) {
	d, l := load(t, "small.yaml")
	d.Arch = "arm64"
	if _, err := New(d, l); !errors.Is(err, lock.ErrNotPinned) {
		t.Errorf("New = %v; want ErrNotPinned", err)
	}
}
