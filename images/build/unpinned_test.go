package build

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cosi-os/cosi/kernel/fetch"
	"github.com/cosi-os/cosi/kernel/fetch/archivetest"
)

// withoutKernel is the fixture whose cache lacks the pinned kernel; the archive has these packages.
func withoutKernel(t *testing.T, archive ...archivetest.Package) (o Options, log *strings.Builder) {
	t.Helper()
	o, log = fixture(t), &strings.Builder{}
	o.change(t, "images/dev.yaml", "compression: lz4", "compression: none")
	o.change(t, "images/dev.yaml", "outputs: [raw, qcow2, iso, pxe]", "outputs: [direct]")
	if err := os.Rename(filepath.Join(o.Cache, "packages", kernelHash), pinned(o)); err != nil {
		t.Fatal(err)
	}
	o.etc = archivetest.Etc(t, archive...)
	o.Log = func(format string, args ...any) { fmt.Fprintf(log, format+"\n", args...) }
	return o, log
}

// pinned is where withoutKernel has put the pinned kernel.
func pinned(o Options) string { return filepath.Join(filepath.Dir(o.Cache), "pinned") }

// kernelPackage is the fixture's kernel as a package.
func kernelPackage(t *testing.T, o Options, version string) archivetest.Package {
	t.Helper()
	p := archivetest.Package{Name: "linux", Version: version, Files: map[string]string{}}
	dir := os.DirFS(filepath.Join(o.Cache, "packages", kernelHash))
	err := fs.WalkDir(dir, ".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		data, err := fs.ReadFile(dir, path)
		p.Files[path] = string(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// The archive has dropped the pinned kernel: the build takes its successor, and says so in everything that it makes.
func TestAnImageWithAnotherPackageIsMarkedUnpinned(t *testing.T) {
	next := kernelPackage(t, fixture(t), "2")
	o, log := withoutKernel(t, next)
	stamp := filepath.Join(o.Output, ".cosi-dev-amd64.stamp")
	for range 2 {
		log.Reset()
		result, m := build(t, o)
		if !result.Unpinned || result.UpToDate {
			t.Errorf("unpinned %v, up to date %v; want an image that is built each time, and unpinned", result.Unpinned, result.UpToDate)
		}
		if p := m.Packages[0]; !m.Unpinned || p.Version != next.Version || p.SHA256 != next.SHA256() {
			t.Errorf("manifest: unpinned %v, %+v; want what was taken instead", m.Unpinned, p)
		}
		if said := log.String(); !strings.Contains(said, "WARNING: linux 1 is gone from ") || !strings.Contains(said, "taking linux 2 instead") {
			t.Errorf("the builder says %q", said)
		}
		if _, err := os.Stat(stamp); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the stamp: %v; want none", err)
		}
		o.marks(t, true)
	}
	// The pinned package is back.
	if err := os.Rename(pinned(o), filepath.Join(o.Cache, "packages", kernelHash)); err != nil {
		t.Fatal(err)
	}
	if result, m := build(t, o); result.Unpinned || m.Unpinned || m.Packages[0].SHA256 != kernelHash {
		t.Errorf("with the pinned kernel: unpinned %v, %v, %+v", result.Unpinned, m.Unpinned, m.Packages[0])
	}
	o.marks(t, false)
	if _, err := os.Stat(stamp); err != nil {
		t.Error(err)
	}
}

// marks looks for the marks inside the image, in which nothing is compressed.
func (o Options) marks(t *testing.T, want bool) {
	t.Helper()
	image, err := os.ReadFile(filepath.Join(o.Output, "cosi-dev-amd64.initramfs"))
	if err != nil {
		t.Fatal(err)
	}
	for _, mark := range []string{"\nCOSI_UNPINNED=1\n", `"unpinned": true`} {
		if strings.Contains(string(image), mark) != want {
			t.Errorf("the image has %q: %v; want %v", mark, !want, want)
		}
	}
}

// Nothing is made of nothing, and nothing of a package that is neither pinned nor of its series.
func TestABuildWithoutAnyKernelFails(t *testing.T) {
	o, _ := withoutKernel(t, archivetest.Package{Name: "linux-other", Version: "9"})
	if _, err := Run(context.Background(), o, o.definition()); !errors.Is(err, fetch.ErrGone) {
		t.Errorf("Run = %v; want ErrGone", err)
	}
	if left, _ := filepath.Glob(filepath.Join(o.Output, "*")); len(left) != 0 {
		t.Errorf("it left %q", left)
	}
}
