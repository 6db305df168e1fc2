package kernel

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ulikunitz/xz"
)

// module is an ELF file with nothing but a .modinfo.
func module(t testing.TB, pairs ...string) []byte {
	t.Helper()
	info := []byte(strings.Join(pairs, "\x00") + "\x00")
	names := []byte("\x00.modinfo\x00.shstrtab\x00")
	header := elf.Header64{Ident: [16]byte{0x7f, 'E', 'L', 'F', 2, 1, 1}, Type: uint16(elf.ET_REL), Machine: uint16(elf.EM_X86_64), Version: 1,
		Ehsize: 64, Shentsize: 64, Shnum: 3, Shstrndx: 2, Shoff: uint64(64 + len(info) + len(names))}
	out := &bytes.Buffer{}
	for _, part := range []any{header, info, names, elf.Section64{},
		elf.Section64{Name: 1, Type: uint32(elf.SHT_PROGBITS), Off: 64, Size: uint64(len(info)), Addralign: 1},
		elf.Section64{Name: 10, Type: uint32(elf.SHT_STRTAB), Off: uint64(64 + len(info)), Size: uint64(len(names)), Addralign: 1},
	} {
		if err := binary.Write(out, binary.LittleEndian, part); err != nil {
			t.Fatal(err)
		}
	}
	out.WriteString("~Module signature appended~\n")
	return out.Bytes()
}

// tree writes a package's files: modules by path below kernel/.
func tree(t *testing.T, builtin string, modules map[string][]byte) string {
	t.Helper()
	root := t.TempDir()
	files := map[string][]byte{"boot/vmlinuz-6.12.1-test": []byte("kernel"), "usr/lib/modules/6.12.1-test/modules.builtin": []byte(builtin)}
	for path, data := range modules {
		if strings.HasSuffix(path, ".xz") {
			compressed := &bytes.Buffer{}
			w, _ := xz.NewWriter(compressed)
			w.Write(data)
			w.Close()
			data = compressed.Bytes()
		}
		files["usr/lib/modules/6.12.1-test/kernel/"+path] = data
	}
	for path, data := range files {
		if err := os.MkdirAll(filepath.Join(root, filepath.Dir(path)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, path), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func example(t *testing.T) string {
	return tree(t, "kernel/fs/ext4/ext4.ko\nkernel/crypto/crc32c_generic.ko\n", map[string][]byte{
		"fs/erofs/erofs.ko.xz":            module(t, "license=GPL", "depends=libcrc32c", "alias=fs-erofs"),
		"lib/libcrc32c.ko.xz":             module(t, "softdep=pre: crc32c", "depends="),
		"net/8021q/8021q.ko.xz":           module(t, "alias=rtnl-link-vlan", "depends=garp,mrp"),
		"net/802/garp.ko":                 module(t, "depends=stp,llc"),
		"net/802/stp.ko":                  module(t, "depends=llc"),
		"net/802/mrp.ko":                  module(t),
		"net/llc/llc.ko":                  module(t),
		"drivers/char/virtio-rng.ko.xz":   module(t, "alias=virtio:d00000004v*", "softdep=pre: ext4 mrp post: llc"),
		"drivers/broken/round-robin.ko":   module(t, "depends=round-trip"),
		"drivers/broken/round-trip.ko":    module(t, "depends=round_robin"),
		"drivers/broken/text.ko":          []byte("no ELF"),
		"drivers/broken/needs-nothing.ko": module(t, "depends=gone"),
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
	f.Add(module(f, "depends=a,b", "softdep=pre: c", "alias=fs-x"))
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
