package kernel

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cosi-os/cosi/kernel/kerneltest"
)

func example(t *testing.T) string {
	return kerneltest.Tree(t, "kernel/fs/ext4/ext4.ko\nkernel/crypto/crc32c_generic.ko\n", map[string][]byte{
		"fs/erofs/erofs.ko.xz":            kerneltest.Module(t, "license=GPL", "depends=libcrc32c", "alias=fs-erofs"),
		"fs/fat/vfat.ko.xz":               kerneltest.Module(t, "alias=fs-vfat", "depends="),
		"fs/nls/nls_cp437.ko.xz":          kerneltest.Module(t),
		"fs/nls/nls_ascii.ko.xz":          kerneltest.Module(t),
		"lib/libcrc32c.ko.xz":             kerneltest.Module(t, "softdep=pre: crc32c", "depends="),
		"net/8021q/8021q.ko.xz":           kerneltest.Module(t, "alias=rtnl-link-vlan", "depends=garp,mrp"),
		"net/802/garp.ko":                 kerneltest.Module(t, "depends=stp,llc"),
		"net/802/stp.ko":                  kerneltest.Module(t, "depends=llc"),
		"net/802/mrp.ko":                  kerneltest.Module(t),
		"net/llc/llc.ko":                  kerneltest.Module(t),
		"drivers/char/virtio-rng.ko.xz":   kerneltest.Module(t, "alias=virtio:d00000004v*", "softdep=pre: ext4 mrp post: llc"),
		"drivers/broken/round-robin.ko":   kerneltest.Module(t, "depends=round-trip"),
		"drivers/broken/round-trip.ko":    kerneltest.Module(t, "depends=round_robin"),
		"drivers/broken/text.ko":          []byte("no ELF"),
		"drivers/broken/needs-nothing.ko": kerneltest.Module(t, "depends=gone"),
	})
}

func names(modules []*Module) []string {
	var all []string
	for _, m := range modules {
		all = append(all, m.Name)
	}
	return all
}

func TestResolveOrdersByNeed(t *testing.T) {
	for name, test := range map[string]struct{ ask, want []string }{
		"a chain":                   {[]string{"erofs"}, []string{"libcrc32c", "erofs"}},
		"a diamond":                 {[]string{"8021q"}, []string{"llc", "stp", "garp", "mrp", "8021q"}},
		"built in":                  {[]string{"ext4"}, nil},
		"hyphens and soft needs":    {[]string{"virtio-rng"}, []string{"mrp", "virtio_rng"}},
		"what it asks for later":    {[]string{"vfat"}, []string{"nls_cp437", "nls_ascii", "vfat"}},
		"twice":                     {[]string{"llc", "llc"}, []string{"llc"}},
		"the order of the question": {[]string{"virtio_rng", "erofs"}, []string{"mrp", "virtio_rng", "libcrc32c", "erofs"}},
	} {
		t.Run(name, func(t *testing.T) {
			k, err := Open(example(t))
			if err != nil {
				t.Fatal(err)
			}
			// Twice: the second time from the uncompressed copies.
			for range 2 {
				got, err := k.Resolve(test.ask...)
				if err != nil || !slices.Equal(names(got), test.want) {
					t.Errorf("Resolve(%q) = %q, %v; want %q", test.ask, names(got), err, test.want)
				}
				for _, m := range got {
					if !bytes.HasSuffix(m.Data, []byte("~Module signature appended~\n")) || strings.HasSuffix(m.Path, ".xz") {
						t.Errorf("%s: compressed, or without its signature", m.Path)
					}
				}
			}
		})
	}
}

func TestResolveFails(t *testing.T) {
	k, err := Open(example(t))
	if err != nil {
		t.Fatal(err)
	}
	for ask, want := range map[string]error{"nothing": ErrUnknownModule, "needs_nothing": ErrUnknownModule, "text": ErrNotModule, "round_robin": nil} {
		if _, err := k.Resolve(ask); err == nil || want != nil && !errors.Is(err, want) {
			t.Errorf("Resolve(%q) = %v; want %v", ask, err, want)
		}
	}
}

func TestOpenWantsOneKernel(t *testing.T) {
	if _, err := Open(t.TempDir()); err == nil {
		t.Error("Open of an empty directory succeeded")
	}
	root := example(t)
	k, err := Open(root)
	if err != nil || k.Release != "6.12.1-test" || k.Image != filepath.Join(root, "boot/vmlinuz-6.12.1-test") {
		t.Errorf("Open = %+v, %v", k, err)
	}
	os.WriteFile(filepath.Join(root, "boot/vmlinuz-7.0"), nil, 0o644)
	if _, err := Open(root); err == nil {
		t.Error("Open with two kernels succeeded")
	}
}

// Since Linux 6.19 Debian has the kernel, its modules and their lists in a package each.
func TestAKernelMayBeInSeveralPackages(t *testing.T) {
	const modules = "usr/lib/modules/6.12.1-test"
	whole := example(t)
	binary, lists := t.TempDir(), t.TempDir()
	move := func(from, to string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(filepath.Join(whole, from), to); err != nil {
			t.Fatal(err)
		}
	}
	move("boot/vmlinuz-6.12.1-test", filepath.Join(binary, modules, "vmlinuz"))
	move(modules+"/modules.builtin", filepath.Join(lists, modules, "modules.builtin"))
	k, err := Open(binary, whole, lists)
	if err != nil || k.Release != "6.12.1-test" || k.Image != filepath.Join(binary, modules, "vmlinuz") {
		t.Fatalf("Open = %+v, %v", k, err)
	}
	if got, err := k.Resolve("erofs", "ext4"); err != nil || !slices.Equal(names(got), []string{"libcrc32c", "erofs"}) {
		t.Errorf("Resolve = %q, %v; want erofs with what it needs, and that ext4 is built in", names(got), err)
	}
	for missing, dirs := range map[string][]string{"kernel": {whole, lists}, "modules": {binary, lists}, "lists": {binary, whole}} {
		if _, err := Open(dirs...); err == nil {
			t.Errorf("Open without the %s succeeded", missing)
		}
	}
}

// Debian 12 has not merged /lib into /usr in its packages.
func TestModulesMayLieInLib(t *testing.T) {
	root := example(t)
	if err := os.Rename(filepath.Join(root, "usr/lib"), filepath.Join(root, "lib")); err != nil {
		t.Fatal(err)
	}
	k, err := Open(root)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := k.Resolve("erofs"); err != nil || !slices.Equal(names(got), []string{"libcrc32c", "erofs"}) || got[1].Path != "kernel/fs/erofs/erofs.ko" {
		t.Errorf("Resolve = %q, %v", names(got), err)
	}
}

func TestIndexFilesReadLikeDepmods(t *testing.T) {
	k, err := Open(example(t))
	if err != nil {
		t.Fatal(err)
	}
	modules, err := k.Resolve("8021q", "erofs")
	if err != nil {
		t.Fatal(err)
	}
	const dependencies = `kernel/fs/erofs/erofs.ko: kernel/lib/libcrc32c.ko
kernel/lib/libcrc32c.ko:
kernel/net/802/garp.ko: kernel/net/802/stp.ko kernel/net/llc/llc.ko
kernel/net/802/mrp.ko:
kernel/net/802/stp.ko: kernel/net/llc/llc.ko
kernel/net/8021q/8021q.ko: kernel/net/802/garp.ko kernel/net/802/stp.ko kernel/net/llc/llc.ko kernel/net/802/mrp.ko
kernel/net/llc/llc.ko:
`
	if got := Dependencies(modules); got != dependencies {
		t.Errorf("Dependencies = %s; want %s", got, dependencies)
	}
	if got, want := Aliases(modules), "alias fs-erofs erofs\nalias rtnl-link-vlan 8021q\n"; got != want {
		t.Errorf("Aliases = %s; want %s", got, want)
	}
}

func FuzzReadInfo(f *testing.F) {
	f.Add(kerneltest.Module(f, "depends=a,b", "softdep=pre: c", "alias=fs-x"))
	f.Fuzz(func(t *testing.T, data []byte) {
		info, err := ReadInfo(bytes.NewReader(data))
		if err != nil && !errors.Is(err, ErrNotModule) {
			t.Errorf("ReadInfo = %v; want ErrNotModule", err)
		}
		if slices.Contains(info.Depends, "") {
			t.Error("a dependency without a name")
		}
	})
}
