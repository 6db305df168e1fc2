package build

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// changed is a copy of a file in which one text was replaced by another of its length.
func changed(t *testing.T, file, from, to string) string {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil || !bytes.Contains(data, []byte(from)) {
		t.Fatalf("%s: no %q in it, %v", file, from, err)
	}
	other := filepath.Join(t.TempDir(), filepath.Base(file))
	writeFile(t, other, bytes.ReplaceAll(data, []byte(from), []byte(to)))
	return other
}

func verify(t *testing.T, o Options, file string) *Verification {
	t.Helper()
	v, err := Verify(context.Background(), o, file)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// Whoever has an image, and the sources, knows whether it was made of them; and if not, where it differs.
func TestAnImageIsVerifiedByBuildingItAgain(t *testing.T) {
	o := fixture(t)
	o.SourceDateEpoch = "1234567890"
	_, m := build(t, o)
	o.SourceDateEpoch = ""
	for _, suffix := range []string{".raw", ".qcow2", ".iso", ".efi", ".initramfs", ".manifest.json"} {
		file := filepath.Join(o.Output, m.Image+suffix)
		v := verify(t, o, file)
		if !v.Equal() || v.Image != m.Image || v.Tree != "the sources here" || len(v.Outputs) == 0 || !strings.Contains(v.String(), "\nequal       ") {
			t.Errorf("%s:\n%s", suffix, v)
		}
	}
	image := changed(t, filepath.Join(o.Output, m.Image+".efi"), "console=ttyS0", "console=ttyS9")
	v := verify(t, o, image)
	if v.Equal() || len(v.Differences) != 1 || v.Differences[0].Section != "boot" || v.Differences[0].Name != ".cmdline" || !strings.Contains(v.String(), "\nNOT EQUAL   ") {
		t.Errorf("with another argument:\n%s", v)
	}
	writeFile(t, filepath.Join(o.Output, m.Image+".iso"), []byte("another"))
	v = verify(t, o, filepath.Join(o.Output, m.Image+".manifest.json"))
	if v.Equal() || len(v.Outputs) != len(m.Outputs) || len(v.Differences) != 1 || v.Differences[0].Name != m.Image+".iso" {
		t.Errorf("with another ISO:\n%s", v)
	}
}

// What an ISO installs is not what the ISO's own hashes say: it is not equal, whatever of it cannot be read.
func TestADamagedMediumIsNotEqual(t *testing.T) {
	o := fixture(t)
	o.change(t, "images/dev.yaml", "compression: lz4", "compression: none")
	o.change(t, "images/dev.yaml", "outputs: [raw, qcow2, iso, pxe]", "outputs: [iso]")
	_, m := build(t, o)
	image := changed(t, filepath.Join(o.Output, m.Image+".iso"), "PRETTY_NAME=", "FRETTY_NAME=")
	if v := verify(t, o, image); v.Equal() || !strings.Contains(v.String(), "\nNOT EQUAL   ") {
		t.Errorf("verified:\n%s", v)
	}
}

func TestAnImageOfOtherSourcesIsNotVerified(t *testing.T) {
	o := fixture(t)
	o.change(t, "images/dev.yaml", "outputs: [raw, qcow2, iso, pxe]", "outputs: [uki]")
	_, m := build(t, o)
	o.change(t, "api/api.go", "one", "two")
	_, err := Verify(context.Background(), o, filepath.Join(o.Output, m.Image+".efi"))
	if !errors.Is(err, ErrOtherTree) || !strings.Contains(err.Error(), "version 1.2.3 is no commit") || !strings.Contains(err.Error(), "these differ: api/api.go") {
		t.Errorf("Verify = %v; want ErrOtherTree, and the file that differs", err)
	}
}

// The commit that an image names is checked out and built by the builder in it, whatever the tree has become. The builder in this one hands out
// what was built before.
func TestAnImageIsBuiltAgainFromItsCommit(t *testing.T) {
	o := fixture(t)
	o.change(t, "images/dev.yaml", "outputs: [raw, qcow2, iso, pxe]", "outputs: [uki]")
	writeFile(t, filepath.Join(o.Tree, "tools/cosi-image/main.go"), []byte(`package main

import (
	"fmt"
	"os"
)

func main() {
	if text, err := os.ReadFile("api/api.go"); err != nil || len(os.Args) != 5 || os.Args[4] != "images/dev.yaml" {
		fmt.Println(err, os.Args, string(text))
		os.Exit(1)
	}
	if err := os.CopyFS(os.Args[3], os.DirFS(os.Getenv("COSI_TEST_BUILT"))); err != nil {
		panic(err)
	}
}
`))
	o.commit(t)
	_, m := build(t, o)
	o.change(t, "api/api.go", "one", "two")
	image := filepath.Join(o.Output, m.Image+".efi")
	t.Setenv("COSI_TEST_BUILT", o.Output)
	_, hash, _ := strings.Cut(m.Inputs.Version, "+")
	if v := verify(t, o, image); !v.Equal() || v.Tree != "commit "+hash {
		t.Errorf("from %s:\n%s", hash, v)
	}
	other := changed(t, image, "console=ttyS0", "console=ttyS9")
	if v := verify(t, o, other); v.Equal() || v.Differences[0].Name != ".cmdline" {
		t.Errorf("with another argument:\n%s", v)
	}
	if err := os.RemoveAll(filepath.Join(o.Tree, ".git")); err != nil {
		t.Fatal(err)
	}
	if _, err := Verify(context.Background(), o, image); !errors.Is(err, ErrOtherTree) || !strings.Contains(err.Error(), "commit "+hash) {
		t.Errorf("without its repository: %v", err)
	}
}
