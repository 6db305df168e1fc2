package build

import (
	"bytes"
	"debug/elf"
	"debug/pe"
	"encoding/binary"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/cosi-os/cosi/images/inspect"
	"github.com/cosi-os/cosi/images/uki/ukitest"
)

const (
	armKernelHash = "aa11111111111111111111111111111111111111111111111111111111111111"
	armStubHash   = "aa22222222222222222222222222222222222222222222222222222222222222"
	armIPXEHash   = "aa44444444444444444444444444444444444444444444444444444444444444"
)

// armFixture is the fixture with what an image for arm64 is made of, and with a definition of one.
func armFixture(t *testing.T) Options {
	t.Helper()
	o := fixture(t)
	o.change(t, "images/dev.yaml", "arch: amd64", "arch: arm64")
	o.change(t, "kernel/lock.yaml", "packages:\n", `packages:
  - {role: kernel-cloud, architecture: arm64, name: linux, series: linux, version: "1", path: pool/l-arm.deb, sha256: `+armKernelHash+`}
  - {role: efi-stub, architecture: arm64, name: stub, series: stub, version: "1", path: pool/s-arm.deb, sha256: `+armStubHash+`}
  - {role: network-loader, architecture: arm64, name: ipxe, series: ipxe, version: "1", path: pool/i-arm.deb, sha256: `+armIPXEHash+`}
`)
	packages := filepath.Join(o.Cache, "packages")
	if err := os.CopyFS(filepath.Join(packages, armKernelHash), os.DirFS(filepath.Join(packages, kernelHash))); err != nil {
		t.Fatal(err)
	}
	for path, text := range map[string]string{
		armKernelHash + "/boot/vmlinuz-6.12.1-test":                    "kernel",
		armStubHash + "/usr/lib/systemd/boot/efi/linuxaa64.efi.stub":   "stub",
		armStubHash + "/usr/lib/systemd/boot/efi/systemd-bootaa64.efi": "systemd-boot",
	} {
		data := ukitest.Program(text)
		binary.LittleEndian.PutUint16(data[0x44:], pe.IMAGE_FILE_MACHINE_ARM64) // behind the signature
		writeFile(t, filepath.Join(packages, path), data)
	}
	writeFile(t, filepath.Join(packages, armIPXEHash, "usr/lib/ipxe/ipxe-arm64.efi"), []byte("iPXE for UEFI of arm64"))
	return o
}

// An image for arm64 is one for amd64 in each of its formats, but for what is the processor's, and for what a BIOS boots.
func TestAnImageForARM(t *testing.T) {
	o := armFixture(t)
	_, m := build(t, o)
	if m.Image != "cosi-dev-arm64" || len(m.Packages) != 3 || m.Packages[0].SHA256 != armKernelHash || m.Packages[1].SHA256 != armStubHash || m.Packages[2].SHA256 != armIPXEHash {
		t.Errorf("%s is made of %+v", m.Image, m.Packages)
	}
	image := filepath.Join(o.Output, m.Image)
	for _, suffix := range []string{".raw", ".qcow2", ".iso", ".efi"} {
		if arch, err := inspect.Arch(image + suffix); err != nil || arch != "arm64" {
			t.Errorf("%s is for %q, %v", suffix, arch, err)
		}
	}
	if arch, err := inspect.Arch(image + ".initramfs"); err == nil {
		t.Errorf("an initramfs is for %q", arch)
	}
	root := regexp.MustCompile(`[0-9a-f]{64}`)
	for suffix, want := range map[string]string{
		".raw": "/EFI/BOOT/BOOTAA64.EFI /EFI/cosi/ROOT.efi /loader/entries/cosi-00000001.conf /loader/loader.conf",
		".iso": "/EFI/BOOT/BOOTAA64.EFI",
	} {
		var esp []string
		for _, f := range report(t, image+suffix).Files {
			if f.Place == inspect.ESP {
				esp = append(esp, root.ReplaceAllString(f.Path, "ROOT"))
			}
		}
		slices.Sort(esp)
		if got := strings.Join(esp, " "); got != want {
			t.Errorf("the ESP of %s has %s; want %s", suffix, got, want)
		}
		if head := read(t, image+suffix, 440); !bytes.Equal(head, make([]byte, 440)) {
			t.Errorf("a BIOS would start what %s begins with: %x…", suffix, head[:16])
		}
	}
	script := string(read(t, image+".ipxe", 1<<16))
	if !strings.HasSuffix(script, "user-data.yaml\nchain cosi-dev-arm64.efi rootfstype=ramfs console=ttyS0 ${arguments}\n") {
		t.Errorf("the script is\n%s", script)
	}
	if ipxe := string(read(t, image+".ipxe-arm64.efi", 1<<16)); ipxe != "iPXE for UEFI of arm64" {
		t.Errorf("firmware loads %q", ipxe)
	}
	suffixes := ""
	for _, f := range m.Outputs {
		suffixes += strings.TrimPrefix(f.Name, m.Image)
	}
	if want := ".vmlinuz.initramfs.efi.ipxe.ipxe-arm64.efi.raw.qcow2.iso"; suffixes != want {
		t.Errorf("the outputs are %s; want %s", suffixes, want)
	}
	programsOf(t, image+".raw", elf.EM_AARCH64)
}

// read returns what a file begins with, up to size bytes.
func read(t *testing.T, file string, size int64) []byte {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, size))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// programsOf checks which machine the programs of an image are for.
func programsOf(t *testing.T, file string, want elf.Machine) {
	t.Helper()
	i, err := inspect.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer i.Close()
	for _, path := range []string{"usr/bin/engine", "usr/bin/runtime", "usr/lib/cosi/bin/plugins", "usr/lib/cosi/bin/marker"} {
		f, err := i.Root.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(f)
		if err != nil {
			t.Fatal(err)
		}
		program, err := elf.NewFile(bytes.NewReader(data))
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		if program.Machine != want {
			t.Errorf("%s is for %v; want %v", path, program.Machine, want)
		}
	}
}
