package main

import (
	"bytes"
	"compress/gzip"
	"debug/pe"
	"encoding/binary"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/u-root/u-root/pkg/cpio"

	"github.com/cosi-os/cosi/api/kinds/builtin"
	"github.com/cosi-os/cosi/api/kinds/descriptors"
	parts "github.com/cosi-os/cosi/images/content"
	"github.com/cosi-os/cosi/images/disk"
	"github.com/cosi-os/cosi/images/fat"
	layout "github.com/cosi-os/cosi/images/plan"
	"github.com/cosi-os/cosi/images/qcow2"
	"github.com/cosi-os/cosi/images/rootfs"
	"github.com/cosi-os/cosi/images/uki"
)

// images makes small ones, as the image builder writes them, of a node that has MountPoints and no other kind: by their extension.
func images(t *testing.T) map[string]string {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	dir := t.TempDir()
	create := func(name string) *os.File {
		f, err := os.Create(filepath.Join(dir, name))
		must(err)
		t.Cleanup(func() { f.Close() })
		return f
	}
	mount, err := builtin.Set().Lookup("mount")
	must(err)
	definition, err := descriptors.Definition(mount)
	must(err)
	var kinds bytes.Buffer
	zip := gzip.NewWriter(&kinds)
	_, err = zip.Write(definition.GetDescriptors())
	must(err)
	must(zip.Close())
	at := time.Unix(1_760_000_000, 0)
	root := create("root.erofs")
	must(rootfs.Write(root, []rootfs.Entry{{Path: layout.Kinds, Mode: 0o644, Content: parts.String(kinds.String())}}, at))
	erofs, err := os.ReadFile(root.Name())
	must(err)
	initramfs := create("node.initramfs")
	archive := cpio.Newc.Writer(initramfs)
	must(archive.WriteRecord(cpio.StaticFile("root.erofs", string(erofs), 0o444)))
	must(cpio.WriteTrailer(archive))
	packed, err := os.ReadFile(initramfs.Name())
	must(err)
	image, err := uki.New(stub(t), uki.Spec{OSRelease: "ID=cosi\n", Uname: "6.12", Initrd: parts.String(string(packed)), Linux: bytes.NewReader(stub(t))})
	must(err)
	loader := create("node.efi")
	_, err = io.Copy(loader, parts.Reader(image))
	must(err)
	raw, small := create("node.raw"), create("node.qcow2")
	guid := "01234567-89AB-CDEF-0123-00000000000"
	must(disk.Spec{
		DiskGUID: guid + "0", PartitionGUIDs: [4]string{guid + "1", guid + "2", guid + "3", guid + "4"},
		ESP: []fat.File{{Path: "EFI/BOOT/BOOTX64.EFI", Content: image}}, Time: at,
	}.Write(raw))
	must(qcow2.Convert(small, raw))
	return map[string]string{"initramfs": initramfs.Name(), "efi": loader.Name(), "raw": raw.Name(), "qcow2": small.Name()}
}

// stub is an EFI program that does nothing.
func stub(t *testing.T) []byte {
	t.Helper()
	var b bytes.Buffer
	dos := make([]byte, 0x40)
	copy(dos, "MZ")
	dos[0x3c] = 0x40
	b.Write(dos)
	b.WriteString("PE\x00\x00")
	text := pe.SectionHeader32{VirtualSize: 1, VirtualAddress: 0x1000, SizeOfRawData: 512, PointerToRawData: 1024, Characteristics: 0x60000020}
	copy(text.Name[:], ".text")
	for _, part := range []any{
		pe.FileHeader{Machine: pe.IMAGE_FILE_MACHINE_AMD64, NumberOfSections: 1, SizeOfOptionalHeader: 240, Characteristics: 0x0206},
		pe.OptionalHeader64{
			Magic: 0x20b, SizeOfCode: 512, AddressOfEntryPoint: 0x1000, BaseOfCode: 0x1000, SectionAlignment: 4096, FileAlignment: 512,
			SizeOfImage: 0x2000, SizeOfHeaders: 1024, Subsystem: 10, NumberOfRvaAndSizes: 16,
		},
		text,
	} {
		if err := binary.Write(&b, binary.LittleEndian, part); err != nil {
			t.Fatal(err)
		}
	}
	b.Write(make([]byte, 1024+512-b.Len()))
	return b.Bytes()
}

// TestTheKindsOfAnImage: of every output that the image builder writes.
func TestTheKindsOfAnImage(t *testing.T) {
	p := newPerson(t, "")
	mount, link := p.file("mount.yaml", mountYAML), p.file("link.yaml", "metadata: {type: link, id: eth0}\nspec: {link: {name: eth0}, mtu: 1400}\n")
	p.want(exitOK, "validate", "-f", link)
	for format, image := range images(t) {
		if text := p.want(exitOK, "validate", "-f", mount, "--image", image); text != "1 resource valid\n" {
			t.Errorf("%s: %q", format, text)
		}
		if text := p.want(exitError, "validate", "-f", link, "--image", image); !strings.Contains(text, `unknown kind "link"`) {
			t.Errorf("%s: a kind that it does not have: %q", format, text)
		}
		if text := p.want(exitOK, "schema", "--image", image); !strings.Contains(text, "MountPoints.storage.cosi.dev") || strings.Contains(text, "Links.network") {
			t.Errorf("%s: the schema has not the kinds of the image:\n%.500s", format, text)
		}
	}
}
