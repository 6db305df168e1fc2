// Package ukitest makes EFI programs that do nothing, for tests of what puts them together.
package ukitest

import (
	"bytes"
	"debug/pe"
	"encoding/binary"
)

// Program is an EFI program with text in its only section.
func Program(text string) []byte {
	const headers = 1024
	out := &bytes.Buffer{}
	dos := make([]byte, 0x40)
	copy(dos, "MZ")
	dos[0x3c] = 0x40
	out.Write(dos)
	out.WriteString("PE\x00\x00")
	section := pe.SectionHeader32{VirtualSize: 512, VirtualAddress: 0x1000, SizeOfRawData: 512, PointerToRawData: headers, Characteristics: 0x60000020}
	copy(section.Name[:], ".text")
	for _, part := range []any{
		pe.FileHeader{Machine: pe.IMAGE_FILE_MACHINE_AMD64, NumberOfSections: 1, SizeOfOptionalHeader: 240, Characteristics: 0x0206},
		pe.OptionalHeader64{Magic: 0x20b, SizeOfCode: 512, AddressOfEntryPoint: 0x1000, BaseOfCode: 0x1000, SectionAlignment: 4096,
			FileAlignment: 512, SizeOfImage: 0x2000, SizeOfHeaders: headers, Subsystem: 10, NumberOfRvaAndSizes: 16},
		section,
	} {
		binary.Write(out, binary.LittleEndian, part) // to memory
	}
	out.Write(make([]byte, headers-out.Len()))
	out.Write(append([]byte(text), make([]byte, 512-len(text))...))
	return out.Bytes()
}
