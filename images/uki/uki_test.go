package uki

import (
	"bytes"
	"debug/pe"
	"encoding/binary"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cosi-os/cosi/images/content"
	"github.com/cosi-os/cosi/images/internal/judge"
)

// testStub returns an EFI program with one section of code, headers bytes of header, and a symbol
// table behind it, as the linker leaves one in systemd's stub.
func testStub(headers uint32) []byte {
	var b bytes.Buffer
	dos := make([]byte, 0x40)
	copy(dos, "MZ")
	dos[0x3c] = 0x40
	b.Write(dos)
	b.WriteString("PE\x00\x00")
	write := func(v any) {
		if err := binary.Write(&b, binary.LittleEndian, v); err != nil {
			panic(err)
		}
	}
	write(pe.FileHeader{Machine: pe.IMAGE_FILE_MACHINE_AMD64, NumberOfSections: 1, SizeOfOptionalHeader: 240,
		PointerToSymbolTable: headers + 512, NumberOfSymbols: 1, Characteristics: 0x0206})
	write(pe.OptionalHeader64{Magic: 0x20b, SizeOfCode: 512, AddressOfEntryPoint: 0x1000, BaseOfCode: 0x1000, SectionAlignment: 4096,
		FileAlignment: 512, SizeOfImage: 0x2000, SizeOfHeaders: headers, CheckSum: 0x1234, Subsystem: 10, NumberOfRvaAndSizes: 16})
	text := pe.SectionHeader32{VirtualSize: 1, VirtualAddress: 0x1000, SizeOfRawData: 512, PointerToRawData: headers, Characteristics: 0x60000020}
	copy(text.Name[:], ".text")
	write(text)
	b.Write(make([]byte, int(headers)+512-b.Len()))
	b.Bytes()[headers] = 0xc3 // ret
	b.Write(make([]byte, 18)) // a symbol
	write(uint32(4 + 10))     // a string table with one name
	b.WriteString("long.name\x00")
	return b.Bytes()
}

func testSpec() Spec {
	return Spec{
		OSRelease: "ID=cosi\nVERSION_ID=1\n", CommandLine: "console=ttyS0", Uname: "6.12.0", PolicyKey: "a key", PolicySignature: "a signature",
		Initrd: content.String(strings.Repeat("initrd", 1000)), Linux: bytes.NewReader(testStub(1024)),
	}
}

func readAll(t *testing.T, c content.Content) []byte {
	t.Helper()
	b, err := io.ReadAll(content.Reader(c))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestNewAppendsTheSections(t *testing.T) {
	s := testSpec()
	img, err := New(testStub(1024), s)
	if err != nil {
		t.Fatal(err)
	}
	b := readAll(t, img)
	f, err := pe.NewFile(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	o := f.OptionalHeader.(*pe.OptionalHeader64)
	end := uint32(0x2000)
	for _, want := range s.sections() {
		got := f.Section(want.name)
		if got == nil {
			t.Fatalf("no section %s", want.name)
		}
		data, err := got.Data()
		if err != nil {
			t.Fatal(err)
		}
		if w := readAll(t, want.data); !bytes.Equal(data[:got.VirtualSize], w) {
			t.Errorf("%s holds %d bytes that differ from its source's %d", want.name, got.VirtualSize, len(w))
		}
		if offset, size := img.Section(want.name); offset != int64(got.Offset) || size != int64(got.VirtualSize) {
			t.Errorf("Section(%s) = %d, %d; want %d, %d", want.name, offset, size, got.Offset, got.VirtualSize)
		}
		if got.VirtualAddress != end {
			t.Errorf("%s is loaded at %#x; want %#x", want.name, got.VirtualAddress, end)
		}
		if got.Offset%o.FileAlignment != 0 || got.Size%o.FileAlignment != 0 {
			t.Errorf("%s: offset %#x and size %#x are not aligned", want.name, got.Offset, got.Size)
		}
		end = (got.VirtualAddress + got.VirtualSize + 4095) &^ 4095
	}
	if o.SizeOfImage != end || o.CheckSum != 0 || len(f.Symbols) != 0 {
		t.Errorf("SizeOfImage %#x, CheckSum %#x, %d symbols; want %#x, 0, none", o.SizeOfImage, o.CheckSum, len(f.Symbols), end)
	}
	path := filepath.Join(t.TempDir(), "uki.efi")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if out := judge.Run(t, "objdump", "-h", path); !strings.Contains(out, ".osrel") || !strings.Contains(out, ".linux") {
		t.Errorf("objdump -h:\n%s", out)
	}
	if out := judge.Run(t, "sbverify", "--list", path); strings.Contains(out, "warning") {
		t.Errorf("sbverify --list:\n%s", out)
	}
}

func TestNewGivesTheSameBytes(t *testing.T) {
	a, err := New(testStub(1024), testSpec())
	if err != nil {
		t.Fatal(err)
	}
	b, err := New(testStub(1024), testSpec())
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(readAll(t, a), readAll(t, b)) {
		t.Error("two images of one Spec differ")
	}
}

func TestNewRefuses(t *testing.T) {
	good := testStub(1024)
	change := func(off int, v ...byte) []byte {
		b := bytes.Clone(good)
		copy(b[off:], v)
		return b
	}
	const opt, table = 0x40 + coffSize, 0x40 + coffSize + 240
	huge := testSpec()
	huge.Initrd = io.NewSectionReader(zeros{}, 0, 1<<32)
	plain := testSpec()
	plain.Linux = content.String("\x1f\x8b a gzipped kernel, say, which is no program at all: " + strings.Repeat("x", 64))
	full, err := New(good, testSpec())
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name, want string
		stub       []byte
		spec       Spec
	}{
		{"no room", "7 section headers need 280 bytes of its header, 144 are free", testStub(512), testSpec()},
		{"not a program", "not an EFI program", []byte("#!/bin/sh\n"), testSpec()},
		{"cut", "sections end at", change(0x40+coffSymbolTable, 0, 0)[:1100], testSpec()},
		{"signed", "is signed", change(opt+112+4*8+4, 1), testSpec()},
		{"twice", "holds a section .osrel already", change(table, []byte(".osrel\x00")...), testSpec()},
		{"long name", "longer than 8 bytes", change(table, []byte("/4\x00\x00\x00")...), testSpec()},
		{"alignment", "alignment", change(opt+36, 3), testSpec()},
		{"headers", "headers", change(table+20, 0, 0), testSpec()},
		{"32-bit ARM", "neither x86-64 nor arm64", change(0x44, 0xc4, 1), testSpec()},
		{"4 GiB", "section .initrd ends above 4 GiB", good, huge},
		{"kernel", "kernel: not an EFI program", good, plain},
		{"uki as stub", "already", readAll(t, full), testSpec()},
	} {
		if _, err := New(tc.stub, tc.spec); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: New = %v; want an error with %q", tc.name, err, tc.want)
		}
	}
}

type zeros struct{}

func (zeros) ReadAt(p []byte, _ int64) (int, error) { clear(p); return len(p), nil }

// Whatever the stub, New refuses it or makes a program that debug/pe finds our sections in.
func FuzzNew(f *testing.F) {
	f.Add(testStub(1024))
	f.Add(testStub(512))
	f.Add(testStub(1024)[:700])
	f.Fuzz(func(t *testing.T, stub []byte) {
		s := testSpec()
		img, err := New(stub, s)
		if err != nil {
			return
		}
		p, err := pe.NewFile(bytes.NewReader(readAll(t, img)))
		if err != nil {
			t.Fatalf("the image cannot be read: %v", err)
		}
		got := p.Section(CommandLine)
		if got == nil {
			t.Fatal("no .cmdline")
		}
		data, err := got.Data()
		if err != nil || string(data[:got.VirtualSize]) != s.CommandLine {
			t.Fatalf(".cmdline reads %q, %v", data, err)
		}
	})
}
