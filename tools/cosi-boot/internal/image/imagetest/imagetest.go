// Package imagetest makes PXE sets that are small, for tests of what serves them.
package imagetest

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"testing"

	"github.com/cosi-os/cosi/images/content"
	"github.com/cosi-os/cosi/images/manifest"
	"github.com/cosi-os/cosi/images/uki"
	"github.com/cosi-os/cosi/images/uki/ukitest"
)

// Name is that of the images for amd64.
const Name = "cosi-tiny-amd64"

// Arguments are those of the kernel in the unified kernel image.
const Arguments = "console=ttyS0"

// Write writes a set for amd64 into dir, with an initramfs of size bytes, and returns its path without suffixes, and the contents of its files by their suffixes.
func Write(t testing.TB, dir string, size int) (stem string, files map[string][]byte) {
	t.Helper()
	return write(t, dir, Name, size, map[string][]byte{
		".undionly.kpxe": bytes.Repeat([]byte("iPXE for a BIOS "), 6800), ".snponly.efi": bytes.Repeat([]byte("iPXE for UEFI "), 20300),
	})
}

// WriteARM writes a set for arm64 likewise.
func WriteARM(t testing.TB, dir string, size int) (stem string, files map[string][]byte) {
	t.Helper()
	return write(t, dir, "cosi-tiny-arm64", size, map[string][]byte{".ipxe-arm64.efi": []byte("iPXE for UEFI of arm64")})
}

// write writes a set with the files of iPXE that are given.
func write(t testing.TB, dir, name string, size int, files map[string][]byte) (string, map[string][]byte) {
	t.Helper()
	linux, initrd := ukitest.Program("kernel"), bytes.Repeat([]byte("initramfs"), size/9+1)[:size]
	image, err := uki.New(ukitest.Program("stub"), uki.Spec{CommandLine: Arguments, Uname: "6.12", Initrd: bytes.NewReader(initrd), Linux: bytes.NewReader(linux)})
	if err != nil {
		t.Fatal(err)
	}
	joined, err := io.ReadAll(content.Reader(image))
	if err != nil {
		t.Fatal(err)
	}
	maps.Copy(files, map[string][]byte{
		".vmlinuz": linux, ".initramfs": initrd, ".efi": joined, ".ipxe": []byte("#!ipxe\nchain " + name + ".vmlinuz ${arguments}\n"),
	})
	m := &manifest.Manifest{Image: name, Inputs: &manifest.Inputs{}}
	for suffix, data := range files {
		m.Outputs = append(m.Outputs, manifest.File{Name: name + suffix, Size: int64(len(data)), SHA256: fmt.Sprintf("%064x", 0)})
		put(t, filepath.Join(dir, name+suffix), data)
	}
	m.Outputs = append(m.Outputs, manifest.File{Name: "../outside"})
	data, err := m.JSON()
	if err != nil {
		t.Fatal(err)
	}
	put(t, filepath.Join(dir, name+".manifest.json"), data)
	return filepath.Join(dir, name), files
}

func put(t testing.TB, file string, data []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, data, 0o644); err != nil {
		t.Fatal(err)
	}
}
