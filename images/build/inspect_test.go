package build

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cosi-os/cosi/images/inspect"
	"github.com/cosi-os/cosi/images/internal/judge"
)

func report(t *testing.T, file string) *inspect.Report {
	t.Helper()
	i, err := inspect.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer i.Close()
	r, err := i.Report()
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// Of every format, all that is nested in it is seen.
func TestAnImageShowsWhatIsInIt(t *testing.T) {
	o := fixture(t)
	o.change(t, "images/dev.yaml", "outputs: [raw, qcow2, iso, pxe]", "outputs: [raw, qcow2, iso, pxe, vhd, vmdk, ova, gcp, oci, upgrade]")
	_, m := build(t, o)
	inner := []string{"boot .cmdline", "boot .linux", "initramfs /init", "initramfs /root.erofs", "root /usr/bin/engine", "root /usr/lib/cosi/plugins/mount.json", "root /usr/lib/modules/6.12.1-test/modules.builtin"}
	onDisk := append([]string{"esp /EFI/BOOT/BOOTX64.EFI"}, slices.DeleteFunc(slices.Clone(inner), func(f string) bool { return f == "initramfs /root.erofs" })...)
	loader := append([]string{"esp /EFI/BOOT/BOOTX64.EFI"}, inner...)
	type image struct {
		format     inspect.Format
		partitions string
		files      []string
		arguments  string
	}
	formats := map[string]image{
		".iso":       {inspect.ISO, "1 bios-boot, 2 esp", loader, "rootfstype=ramfs console=ttyS0"},
		".efi":       {inspect.UKI, "", inner, "rootfstype=ramfs console=ttyS0"},
		".oci.tar":   {inspect.OCI, "", inner, "rootfstype=ramfs console=ttyS0"},
		".initramfs": {inspect.Initramfs, "", inner[2:], "rootfstype=ramfs console=ttyS0"},
	}
	for suffix, format := range map[string]inspect.Format{
		".raw": inspect.Raw, ".qcow2": inspect.QCOW2, ".vhd": inspect.VHD, ".vmdk": inspect.VMDK, ".ova": inspect.OVA, ".gcp.tar.gz": inspect.GCP, ".upgrade": inspect.Upgrade,
	} {
		formats[suffix] = image{format, "1 bios-boot, 2 esp, 3 root-a, 4 root-b", onDisk, "rootfstype=ramfs console=ttyS0 roothash="}
	}
	for suffix, want := range formats {
		whole, err := os.ReadFile(filepath.Join(o.Output, m.Image+suffix))
		if err != nil {
			t.Fatal(err)
		}
		half := filepath.Join(t.TempDir(), "half")
		writeFile(t, half, whole[:len(whole)*6/10/512*512])
		_, err = inspect.Open(half)
		if said := err != nil && (strings.Contains(err.Error(), "cut off") || strings.Contains(err.Error(), "EOF")); !said && suffix != ".oci.tar" { // what is read of that is there
			t.Errorf("%s, of which the end is missing: %v; want that", suffix, err)
		}
		r := report(t, filepath.Join(o.Output, m.Image+suffix))
		var partitions, files []string
		for _, p := range r.Partitions {
			partitions = append(partitions, string(rune('0'+p.Number))+" "+p.Name)
		}
		hashes := map[string]string{}
		for _, f := range r.Files {
			files = append(files, string(f.Place)+" "+f.Path)
			hashes[string(f.Place)+" "+f.Path] = f.SHA256
		}
		if r.Format != want.format || strings.Join(partitions, ", ") != want.partitions || !strings.HasPrefix(strings.Join(r.Arguments, " "), want.arguments) {
			t.Errorf("%s: %s with the partitions %q and the arguments %q", suffix, r.Format, partitions, r.Arguments)
		}
		for _, file := range want.files {
			if !slices.Contains(files, file) || len(hashes[file]) != 64 {
				t.Errorf("%s: no %s among %q", suffix, file, files)
			}
		}
		if hashes["initramfs /init"] != hashes["root /usr/bin/engine"] {
			t.Errorf("%s: /init is %s, the engine %s", suffix, hashes["initramfs /init"], hashes["root /usr/bin/engine"])
		}
		if r.Image != m.Image || r.Version != m.Inputs.Version || r.Kernel != m.Kernel || r.Definition != "images/dev.yaml" || len(r.Packages) != len(m.Packages) {
			t.Errorf("%s says that it is %+v", suffix, r)
		}
		if got := suffixOf(r.Format); got != suffix {
			t.Errorf("%s: Verify compares it with the output %s", suffix, got)
		}
		text := r.String()
		for _, part := range []string{m.Image + " 1.2.3, " + string(want.format), " 6.12.1-test\n", "\nroot        /usr/bin/engine"} {
			if !strings.Contains(text, part) {
				t.Errorf("%s: no %q in\n%s", suffix, part, text)
			}
		}
	}
}

func TestWhoSignedABootImage(t *testing.T) {
	o := fixture(t)
	o.change(t, "images/dev.yaml", "outputs: [raw, qcow2, iso, pxe]", "outputs: [uki]")
	_, m := build(t, o)
	image := filepath.Join(o.Output, m.Image+".efi")
	if r := report(t, image); len(r.Signatures) != 2 || r.Signatures[0].String() != "boot image: not signed" || r.Signatures[1].String() != "kernel: not signed" {
		t.Errorf("not signed: %q", r.Signatures)
	}
	dir := t.TempDir()
	key, certificate, signed := filepath.Join(dir, "key"), filepath.Join(dir, "cert"), filepath.Join(dir, "signed.efi")
	judge.Run(t, "openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=who signs", "-keyout", key, "-out", certificate)
	judge.Run(t, "sbsign", "--key", key, "--cert", certificate, "--output", signed, image)
	if r := report(t, signed); !strings.HasPrefix(r.Signatures[0].String(), "boot image: CN=who signs, certificate ") || r.Signatures[0].Wrong != "" {
		t.Errorf("signed: %q", r.Signatures)
	}
	if r := report(t, changed(t, signed, "console=ttyS0", "console=ttyS9")); !strings.HasSuffix(r.Signatures[0].String(), "; NOT GOOD: is that of other bytes") {
		t.Errorf("signed, and changed: %q", r.Signatures)
	}
	data, err := os.ReadFile(signed)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, signed, data[:len(data)-64])
	i, err := inspect.Open(signed)
	if err != nil {
		t.Fatal(err)
	}
	defer i.Close()
	if _, err := i.Report(); err == nil || !strings.Contains(err.Error(), "its table of certificates is not at its end") {
		t.Errorf("cut off: %v", err)
	}
}
