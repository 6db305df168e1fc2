package own

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cosi-os/cosi/kernel"
	"github.com/cosi-os/cosi/kernel/lock"
)

// tools puts compilers that only say their versions before the machine's commands.
func tools(t *testing.T, version string) {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"x86_64-linux-gnu-gcc", "x86_64-linux-gnu-ld", "pahole", "lz4"} {
		write(t, filepath.Join(dir, name), "#!/bin/sh\necho "+version+"\necho more\n")
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
}

// tree writes kernel/config.
func tree(t *testing.T, common string) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"common", "hardening", "amd64", "hardening-amd64"} {
		write(t, filepath.Join(dir, "kernel/config", name+".config"), map[string]string{"common": common}[name])
	}
	return dir
}

// source is an unpacked package with something that is made as Linux is. It counts how often it is unpacked and made in the file counts.
func source(t *testing.T, counts string) string {
	t.Helper()
	dir, inside := t.TempDir(), t.TempDir()
	write(t, filepath.Join(inside, "linux-source-6.12/Makefile"), `
RUSTC = rustc
allnoconfig:
	echo configured >>`+counts+`
	grep -v -e =n -e UNKNOWN $(KCONFIG_ALLCONFIG) >.config
	$(RUSTC) --version >>.config || :
bzImage:
	echo compiled >>`+counts+`
	@grep -q CONFIG_BROKEN .config && { echo "main.c: no such thing"; touch progress; exit 1; } || :
	mkdir -p arch/x86/boot include/config
	echo "$(ARCH) $(CROSS_COMPILE) $(KBUILD_BUILD_USER) $(KBUILD_BUILD_VERSION_TIMESTAMP) $(CFLAGS_ioctl.o) $(SOMETHING)" >arch/x86/boot/bzImage
	[ ! -e progress ] || echo "goes on" >>arch/x86/boot/bzImage
	echo 6.12.0-cosi >include/config/kernel.release
	echo kernel/fs/ext4/ext4.ko >modules.builtin
	echo 0 start >System.map
`)
	if err := os.MkdirAll(filepath.Join(dir, "usr/src"), 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("tar", "-C", inside, "-cJf", filepath.Join(dir, "usr/src/linux-source-6.12.tar.xz"), "linux-source-6.12")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("tar: %v: %s", err, out)
	}
	return dir
}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
}

func readFile(t *testing.T, file string) string {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

var pinned = lock.Package{Name: "linux-source-6.12", Version: "6.12.1-1", SHA256: "1234"}

func newKernel(t *testing.T, common string) *Kernel {
	t.Helper()
	k, err := New(context.Background(), tree(t, common), "amd64", pinned)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func builder(t *testing.T) *Builder {
	return &Builder{Cache: t.TempDir(), Phase: func(string) func(string) { return func(string) {} }}
}

func TestAKernelIsBuiltOnce(t *testing.T) {
	tools(t, "12.2")
	t.Setenv("SOMETHING", "of the user's")
	t.Setenv("KBUILD_BUILD_USER", "somebody")
	counts := filepath.Join(t.TempDir(), "counts")
	from, b := source(t, counts), builder(t)
	k := newKernel(t, "CONFIG_A=y\nCONFIG_B=n\n")
	if _, err := k.Cached(b.Cache); !errors.Is(err, ErrNotBuilt) || !strings.Contains(err.Error(), "make kernel ARCH=amd64") {
		t.Errorf("Cached before there is a kernel: %v", err)
	}
	var dir string
	for range 2 {
		var err error
		if dir, err = b.Build(context.Background(), k, from); err != nil {
			t.Fatal(err)
		}
	}
	if got := readFile(t, counts); got != "configured\ncompiled\n" {
		t.Errorf("two builds did\n%s", got)
	}
	built, err := kernel.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if got := readFile(t, built.Image); got != "x86_64 x86_64-linux-gnu- cosi Debian 6.12.1-1 -fno-inline-functions-called-once \n" {
		t.Errorf("the image is %q", got)
	}
	if modules, err := built.Resolve("ext4"); err != nil || len(modules) != 0 || len(built.Names()) != 0 || built.Release != "6.12.0-cosi" {
		t.Errorf("modules for ext4: %v, %v; all: %q; release %s", modules, err, built.Names(), built.Release)
	}
	if got := readFile(t, filepath.Join(dir, "boot/config-6.12.0-cosi")); got != "CONFIG_A=y\n" {
		t.Errorf("its configuration is %q", got)
	}
	if left, _ := filepath.Glob(filepath.Join(b.Cache, "kernels", "*.work")); len(left) != 0 {
		t.Errorf("%q is left", left)
	}
	if cached, err := k.Cached(b.Cache); err != nil || cached != dir {
		t.Errorf("Cached = %s, %v; want %s", cached, err, dir)
	}
}

// A compiler that was killed, or an option that was wrong, does not cost what was compiled before.
func TestABuildThatFailedGoesOn(t *testing.T) {
	tools(t, "12.2")
	from, b := source(t, filepath.Join(t.TempDir(), "counts")), builder(t)
	_, err := b.Build(context.Background(), newKernel(t, "CONFIG_BROKEN=y\n"), from)
	log := filepath.Join(b.Cache, "kernels/amd64.log")
	if err == nil || !strings.Contains(err.Error(), "compile: make bzImage: exit status 2: see "+log) || !strings.Contains(readFile(t, log), "main.c: no such thing") {
		t.Errorf("Build of what does not compile: %v", err)
	}
	dir, err := b.Build(context.Background(), newKernel(t, "CONFIG_A=y\n"), from)
	if err != nil {
		t.Fatal(err)
	}
	if got := readFile(t, filepath.Join(dir, "boot/vmlinuz-6.12.0-cosi")); !strings.Contains(got, "goes on") {
		t.Error("it began anew")
	}
	if _, err := b.Build(context.Background(), newKernel(t, "CONFIG_BROKEN=y\n"), from); err == nil {
		t.Fatal("what does not compile was built")
	}
	other := newKernel(t, "CONFIG_A=y\nCONFIG_C=y\n")
	other.Source.SHA256 = "5678"
	if dir, err = b.Build(context.Background(), other, from); err != nil {
		t.Fatal(err)
	}
	if got := readFile(t, filepath.Join(dir, "boot/vmlinuz-6.12.0-cosi")); strings.Contains(got, "goes on") {
		t.Error("it went on with another source")
	}
}

func TestOptionsThatDoNotComeTrueAreErrors(t *testing.T) {
	tools(t, "12.2")
	counts := filepath.Join(t.TempDir(), "counts")
	_, err := builder(t).Build(context.Background(), newKernel(t, "# hello\nCONFIG_A=y\nCONFIG_UNKNOWN=y\nCONFIG_ALSO_UNKNOWN=3\n"), source(t, counts))
	want := "configure: kernel/config/common.config:3: CONFIG_UNKNOWN=y: this Linux has none, or it needs another option\nkernel/config/common.config:4: CONFIG_ALSO_UNKNOWN=3: this Linux has none, or it needs another option"
	if err == nil || err.Error() != want {
		t.Errorf("%v; want %s", err, want)
	}
	if got := readFile(t, counts); got != "configured\n" {
		t.Errorf("it did\n%s", got)
	}
	k := newKernel(t, "CONFIG_A=y\nCONFIG_N=5\nCONFIG_OFF=n\n")
	if err := k.Lacking("CONFIG_A=y\nCONFIG_N=5\n# CONFIG_OFF is not set\nCONFIG_MORE=y\n"); err != nil {
		t.Error(err)
	}
	if err := k.Lacking("CONFIG_A=m\nCONFIG_N=5\nCONFIG_OFF=y\n"); err == nil || strings.Count(err.Error(), "this Linux makes it") != 2 {
		t.Errorf("Lacking = %v; want two", err)
	}
}

func TestWhatIsNoOptionIsAnError(t *testing.T) {
	for text, want := range map[string]string{
		"CONFIG_A=m":                         "kernel/config/common.config:1: CONFIG_A=m: want CONFIG_NAME=VALUE: y, n, a number or a text in quotes; there are no modules",
		"\nA=y":                              "kernel/config/common.config:2: A=y: want",
		"CONFIG_A":                           "kernel/config/common.config:1: CONFIG_A: want",
		"CONFIG_A=y\nCONFIG_B=n\nCONFIG_A=n": "kernel/config/common.config:3: CONFIG_A stands in kernel/config/common.config:1 already",
	} {
		if _, err := New(context.Background(), tree(t, text), "amd64", pinned); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v; want %s", text, err, want)
		}
	}
	if _, err := New(context.Background(), t.TempDir(), "amd64", pinned); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without files: %v", err)
	}
}

func TestWithoutToolsNobodyKnowsWhichKernelItIs(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	if _, err := New(context.Background(), tree(t, "CONFIG_A=y"), "amd64", pinned); !errors.Is(err, ErrNoTool) || !strings.Contains(err.Error(), "x86_64-linux-gnu-gcc") {
		t.Errorf("%v; want ErrNoTool and the compiler", err)
	}
}

func TestTheDigestIsThatOfAllInputs(t *testing.T) {
	const options = "CONFIG_A=y\nCONFIG_NAME=\"x\"\n"
	tools(t, "12.2")
	want := newKernel(t, options).Digest()
	if got := newKernel(t, "# why\n"+options).Digest(); got != want {
		t.Error("a comment, or another path, makes another kernel of it")
	}
	other := map[string]*Kernel{"option": newKernel(t, options+"CONFIG_B=y\n"), "value": newKernel(t, strings.ReplaceAll(options, "x", "y"))}
	for name, change := range map[string]func(*Kernel){
		"source":       func(k *Kernel) { k.Source.SHA256 = "5678" },
		"version":      func(k *Kernel) { k.Source.Version = "6.12.2-1" },
		"architecture": func(k *Kernel) { k.Architecture = "arm64" },
	} {
		other[name] = newKernel(t, options)
		change(other[name])
	}
	tools(t, "14.2")
	other["tools"] = newKernel(t, options)
	for name, k := range other {
		if k.Digest() == want {
			t.Errorf("another %s makes no other kernel of it", name)
		}
	}
}
