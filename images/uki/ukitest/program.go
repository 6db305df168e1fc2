// Package ukitest makes EFI programs that do nothing, for tests of what puts them together.
package ukitest

import (
	"bytes"
	"debug/pe"
	"encoding/binary"
	"maps"
	"slices"
)

const (
	headers   = 1024
	alignment = 512
	page      = 4096
)

// Program is an EFI program with text in its only section.
func Program(text string) []byte {
	padded := make([]byte, alignment)
	copy(padded, text)
	return Sections(map[string]string{".text": string(padded)})
}

// Sections is an EFI program with these sections, in the order of their names.
func Sections(texts map[string]string) []byte {
	out := &bytes.Buffer{}
	write := func(v any) { binary.Write(out, binary.LittleEndian, v) } // to memory
	dos := make([]byte, 0x40)
	copy(dos, "MZ")
	dos[0x3c] = 0x40
	out.Write(dos)
	out.WriteString("PE\x00\x00")
	names := slices.Sorted(maps.Keys(texts))
	write(pe.FileHeader{Machine: pe.IMAGE_FILE_MACHINE_AMD64, NumberOfSections: uint16(len(names)), SizeOfOptionalHeader: 240, Characteristics: 0x0206})
	write(pe.OptionalHeader64{Magic: 0x20b, SizeOfCode: alignment, AddressOfEntryPoint: page, BaseOfCode: page, SectionAlignment: page,
		FileAlignment: alignment, SizeOfImage: uint32(1+len(names)) * page, SizeOfHeaders: headers, Subsystem: 10, NumberOfRvaAndSizes: 16})
	data := &bytes.Buffer{}
	for i, name := range names {
		text := texts[name]
		size := (len(text) + alignment - 1) / alignment * alignment
		section := pe.SectionHeader32{VirtualSize: uint32(len(text)), VirtualAddress: uint32(1+i) * page,
			SizeOfRawData: uint32(size), PointerToRawData: uint32(headers + data.Len()), Characteristics: 0x60000020}
		copy(section.Name[:], name)
		write(section)
		data.WriteString(text)
		data.Write(make([]byte, size-len(text)))
	}
	out.Write(make([]byte, headers-out.Len()))
	out.Write(data.Bytes())
	return out.Bytes()
}
