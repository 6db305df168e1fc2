// Package grubtest makes what package grub reads: a loader that boots nothing. Tests of what installs one call it.
package grubtest

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Kernel is what the kernel is in memory.
const Kernel = "the kernel of GRUB"

// moduleNeeds are the modules, with what they need.
const moduleNeeds = "linux: normal boot\nnormal: boot\nboot:\nbiosdisk:\npart_gpt:\nfat: fshelp\nfshelp:\nloopback:\nsleep: normal\nreboot:\nloadenv: extcmd\nextcmd:\ntest:\nconfigfile: normal\nunused:\n"

// Write writes the parts into the directory of an unpacked package.
func Write(t testing.TB, dir string) {
	t.Helper()
	files := map[string]string{
		"boot.img": part("boot.img", 512), "diskboot.img": part("diskboot.img", 512), "cdboot.img": part("cdboot.img", 2048),
		"lzma_decompress.img": part("lzma_decompress.img", 2000), "kernel.img": kernel(), "moddep.lst": moduleNeeds,
	}
	for line := range strings.Lines(moduleNeeds) {
		name, _, _ := strings.Cut(line, ":")
		files[name+".mod"] = "the module " + name
	}
	where := filepath.Join(dir, "usr/lib/grub/i386-pc")
	if err := os.MkdirAll(where, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, data := range files {
		if err := os.WriteFile(filepath.Join(where, name), []byte(data), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func part(name string, size int) string { return strings.Repeat(name+" ", size)[:size] }

// kernel is an ELF file with Kernel as its only segment.
func kernel() string {
	const headers = 52 + 32
	out := &bytes.Buffer{}
	header := elf.Header32{
		Type: uint16(elf.ET_EXEC), Machine: uint16(elf.EM_386), Version: 1, Entry: 0x9000,
		Phoff: 52, Ehsize: 52, Phentsize: 32, Phnum: 1, Shentsize: 40,
	}
	copy(header.Ident[:], elf.ELFMAG+"\x01\x01\x01") // 32 bits, little endian, version 1
	for _, v := range []any{
		header,
		elf.Prog32{Type: uint32(elf.PT_LOAD), Off: headers, Vaddr: 0x9000, Filesz: uint32(len(Kernel)), Memsz: uint32(len(Kernel)) + 100},
	} {
		binary.Write(out, binary.LittleEndian, v) // to memory
	}
	return out.String() + Kernel
}
