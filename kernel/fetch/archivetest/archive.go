// Package archivetest makes Debian archives. Tests of what fetches from one call it.
package archivetest

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// Package is a package for amd64.
type Package struct {
	Name, Version string
	Files         map[string]string // content by path, without a leading slash
}

// Deb is the package as a file: the same bytes each time.
func (p Package) Deb() []byte {
	control := fmt.Sprintf("Package: %s\nVersion: %s\nArchitecture: amd64\nMaintainer: x\nDescription: x\n", p.Name, p.Version)
	out := bytes.NewBufferString("!<arch>\n")
	for _, member := range []struct{ name, content string }{
		{"debian-binary", "2.0\n"},
		{"control.tar", archive(map[string]string{"control": control})},
		{"data.tar", archive(p.Files)},
	} {
		fmt.Fprintf(out, "%-16s%-12d%-6d%-6d%-8s%-10d`\n%s", member.name, 0, 0, 0, "100644", len(member.content), member.content)
	}
	return out.Bytes()
}

// archive is a tar file. Writing it to memory cannot fail.
func archive(files map[string]string) string {
	out := &bytes.Buffer{}
	w := tar.NewWriter(out)
	for _, path := range slices.Sorted(maps.Keys(files)) {
		w.WriteHeader(&tar.Header{Name: "./" + path, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(files[path]))})
		w.Write([]byte(files[path]))
	}
	w.Close()
	return out.String()
}

// Path is the package's place in every archive.
func (p Package) Path() string { return "pool/" + p.Name + "_" + p.Version + "_amd64.deb" }

// SHA256 is the hash of the package's file.
func (p Package) SHA256() string { return fmt.Sprintf("%x", sha256.Sum256(p.Deb())) }

// Etc makes an archive of Debian 13, and returns the /etc of a Debian 12 machine whose apt has it: with apt/sources.list and os-release.
// Where there is no apt, the test is skipped.
func Etc(t testing.TB, packages ...Package) string {
	t.Helper()
	if _, err := exec.LookPath("apt-get"); err != nil {
		t.Skip("apt-get is not here")
	}
	root, etc := t.TempDir(), t.TempDir()
	index := &strings.Builder{}
	for _, p := range packages {
		data := p.Deb()
		write(t, filepath.Join(root, p.Path()), string(data))
		fmt.Fprintf(index, "Package: %s\nVersion: %s\nArchitecture: amd64\nFilename: %s\nSize: %d\nSHA256: %s\n\n", p.Name, p.Version, p.Path(), len(data), p.SHA256())
	}
	const name = "main/binary-amd64/Packages"
	release := fmt.Sprintf("Suite: trixie\nCodename: trixie\nArchitectures: amd64\nComponents: main\nDate: Sat, 01 Nov 2025 00:00:00 UTC\nSHA256:\n %x %d %s\n",
		sha256.Sum256([]byte(index.String())), index.Len(), name)
	write(t, filepath.Join(root, "dists/trixie", name), index.String())
	write(t, filepath.Join(root, "dists/trixie/Release"), release)
	write(t, filepath.Join(etc, "apt/sources.list"), "deb [trusted=yes] file:"+root+" bookworm main\n")
	write(t, filepath.Join(etc, "os-release"), "ID=debian\nVERSION_CODENAME=bookworm\n")
	return etc
}

func write(t testing.TB, file, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}
