package build

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cosi-os/cosi/kernel/fetch"
	"github.com/cosi-os/cosi/kernel/fetch/archivetest"
	"github.com/cosi-os/cosi/kernel/lock"
	"github.com/cosi-os/cosi/kernel/own"
)

// linuxSource is a package of which a kernel would be built.
func linuxSource(version string) archivetest.Package {
	return archivetest.Package{Name: "linux-source", Version: version, Files: map[string]string{"usr/src/README": "Linux " + version}}
}

// ownFixture is the fixture with a definition that says flavour: own, with tools that only say their version, and an archive that has these
// packages.
func ownFixture(t *testing.T, archive ...archivetest.Package) Options {
	t.Helper()
	o := fixture(t)
	o.change(t, "images/dev.yaml", "flavour: cloud", "flavour: own")
	o.change(t, "images/dev.yaml", "outputs: [raw, qcow2, iso, pxe]", "outputs: [direct]")
	p := linuxSource("1")
	o.change(t, "kernel/lock.yaml", "packages:\n", "packages:\n  - {role: kernel-own, architecture: amd64, name: linux-source, series: linux-source, version: \"1\", path: "+p.Path()+", sha256: "+p.SHA256()+"}\n")
	for _, name := range []string{"common", "hardening", "amd64", "hardening-amd64"} {
		writeFile(t, filepath.Join(o.Tree, own.Directory, name+".config"), []byte("CONFIG_"+strings.ToUpper(strings.ReplaceAll(name, "-", "_"))+"=y\n"))
	}
	o.etc = archivetest.Etc(t, archive...)
	ownTools(t, "12.2")
	return o
}

func ownTools(t *testing.T, version string) {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"x86_64-linux-gnu-gcc", "x86_64-linux-gnu-ld", "pahole", "lz4"} {
		writeFile(t, filepath.Join(dir, name), []byte("#!/bin/sh\necho "+version+"\n"))
		if err := os.Chmod(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
}

// ownKernel is the one that the definition asks for.
func (o Options) ownKernel(t *testing.T) *own.Kernel {
	t.Helper()
	l, err := lock.Load(filepath.Join(o.Tree, LockFile))
	if err != nil {
		t.Fatal(err)
	}
	sources, err := l.Parts(lock.KernelOwn, "amd64")
	if err != nil {
		t.Fatal(err)
	}
	k, err := own.New(context.Background(), o.Tree, "amd64", sources[0])
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// An image takes our own kernel as make kernel has left it, and never waits for one. Its source is not even fetched.
func TestAnImageWithOurOwnKernel(t *testing.T) {
	o := ownFixture(t)
	if _, err := Run(context.Background(), o, o.definition()); !errors.Is(err, own.ErrNotBuilt) {
		t.Fatalf("Run without the kernel: %v; want ErrNotBuilt", err)
	}
	if e, err := Explain(context.Background(), o, o.definition()); err != nil || !strings.Contains(e.String(), "linux-source") {
		t.Errorf("the plan of what is not built yet: %v, %v", e, err)
	}
	k := o.ownKernel(t)
	if err := os.CopyFS(k.Dir(o.Cache), os.DirFS(filepath.Join(o.Cache, "packages", kernelHash))); err != nil {
		t.Fatal(err)
	}
	_, m := build(t, o)
	if p := m.Packages[0]; p.Role != lock.KernelOwn || p.SHA256 != linuxSource("1").SHA256() || m.Unpinned || m.Kernel != "6.12.1-test" {
		t.Errorf("the manifest names %+v, kernel %s, unpinned %v", p, m.Kernel, m.Unpinned)
	}
	if len(m.Inputs.KernelTools) != 4 || m.Inputs.Files["kernel/config/hardening-amd64.config"] == "" {
		t.Errorf("the manifest names the tools %q, and the files %v", m.Inputs.KernelTools, m.Inputs.Files)
	}
	var lists []string
	for _, f := range report(t, filepath.Join(o.Output, m.Image+".initramfs")).Files {
		if name := filepath.Base(f.Path); strings.HasPrefix(name, "modules.") {
			lists = append(lists, name)
		}
	}
	if !slices.Equal(lists, []string{"modules.builtin"}) {
		t.Errorf("without modules, the root has the lists %q", lists)
	}
	if e, err := Explain(context.Background(), o, o.definition()); err != nil || !strings.Contains(e.String(), "built into the kernel") {
		t.Errorf("the plan of what is built: %v, %v", e, err)
	}
	if got, err := Kernel(context.Background(), o, "amd64", false); err != nil || got.Built || got.Dir != k.Dir(o.Cache) || strings.Count(got.Unrecorded, k.Digest()) != 3 {
		t.Errorf("Kernel = %+v, %v; want nothing to be built", got, err)
	}
	if result, _ := build(t, o); !result.UpToDate {
		t.Error("it was built again though nothing has changed")
	}
	for _, record := range []bool{true, false} {
		if got, err := Kernel(context.Background(), o, "amd64", record); err != nil || got.Built || got.Unrecorded != "" {
			t.Errorf("Kernel once it is recorded = %+v, %v", got, err)
		}
	}
	writeFile(t, filepath.Join(k.Dir(o.Cache), "boot/vmlinuz-6.12.1-test"), []byte("another"))
	changed := o
	changed.Output = t.TempDir()
	if _, err := Run(context.Background(), changed, o.definition()); !errors.Is(err, own.ErrOther) {
		t.Errorf("Run with another kernel than the recorded one: %v; want ErrOther", err)
	}
	if _, err := Kernel(context.Background(), o, "amd64", false); !errors.Is(err, own.ErrOther) {
		t.Errorf("Kernel: %v; want ErrOther", err)
	}
	ownTools(t, "14.2")
	if other, err := different(context.Background(), o, m, o.definition()); err != nil || !slices.ContainsFunc(other, func(s string) bool { return strings.Contains(s, "14.2") }) {
		t.Errorf("with another compiler these are different: %q, %v", other, err)
	}
	if _, err := Run(context.Background(), o, o.definition()); !errors.Is(err, own.ErrNotBuilt) {
		t.Errorf("Run with another compiler: %v; want ErrNotBuilt", err)
	}
}

// Debian's kernels need none of the tools.
func TestWithoutToolsThereIsNoOwnKernel(t *testing.T) {
	o := ownFixture(t)
	bin := t.TempDir()
	for _, name := range []string{"go", "git"} {
		path, err := exec.LookPath(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(path, filepath.Join(bin, name)); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", bin)
	if _, err := Run(context.Background(), o, o.definition()); !errors.Is(err, own.ErrNoTool) {
		t.Errorf("Run: %v; want ErrNoTool", err)
	}
	if _, err := Explain(context.Background(), o, o.definition()); err != nil {
		t.Errorf("a plan needs none: %v", err)
	}
}

// Nobody wants to wait half an hour for a kernel that is not the one he has asked for.
func TestOurOwnKernelIsBuiltOfNoOtherSource(t *testing.T) {
	o := ownFixture(t, linuxSource("2"))
	_, err := Kernel(context.Background(), o, "amd64", false)
	if !errors.Is(err, fetch.ErrGone) || !strings.Contains(err.Error(), "pin 2, SHA-256 "+linuxSource("2").SHA256()) {
		t.Errorf("Kernel: %v; want ErrGone, and what to pin", err)
	}
	if _, err := os.Stat(filepath.Join(o.Cache, "kernels")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it has begun to build: %v", err)
	}
}
