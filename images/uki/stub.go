package uki

import (
	"bytes"
	"debug/pe"
	"encoding/binary"
	"fmt"
	"math/bits"
)

const (
	sectionHeaderSize = 40

	// Offsets in the COFF header, which follows the signature "PE\0\0".
	coffSections    = 4 + 2
	coffSymbolTable = 4 + 8
	coffSymbols     = 4 + 12
	coffSize        = 4 + 20

	// Offsets in the optional header of PE32+.
	optInitializedData = 8
	optSizeOfImage     = 56
	optCheckSum        = 64

	certificateTable = 4 // index of the data directory
)

// header is what join needs to know of a stub.
type header struct {
	coff, opt     int // offsets of the PE signature and of the optional header
	tableEnd      int // where the next section header goes
	dataEnd       int // where the last section's data ends
	sections      int
	sizeOfHeaders uint32
	sectionAlign  uint32
	fileAlign     int64
	initialized   uint32
	virtualEnd    uint64 // aligned
}

// parseStub reads an EFI program's headers and checks what join relies on.
func parseStub(stub []byte) (*header, error) {
	if !bytes.HasPrefix(stub, []byte("MZ")) { // debug/pe reads object files too
		return nil, fmt.Errorf("not an EFI program")
	}
	f, err := pe.NewFile(bytes.NewReader(stub))
	if err != nil {
		return nil, err
	}
	if f.Machine != pe.IMAGE_FILE_MACHINE_AMD64 && f.Machine != pe.IMAGE_FILE_MACHINE_ARM64 {
		return nil, fmt.Errorf("machine %#x is neither x86-64 nor arm64", f.Machine)
	}
	o, ok := f.OptionalHeader.(*pe.OptionalHeader64)
	if !ok {
		return nil, fmt.Errorf("no PE32+ optional header")
	}
	if bits.OnesCount32(o.SectionAlignment) != 1 || bits.OnesCount32(o.FileAlignment) != 1 || o.FileAlignment > 1<<16 || o.SectionAlignment > 1<<21 {
		return nil, fmt.Errorf("alignment of sections %d, of their data %d", o.SectionAlignment, o.FileAlignment)
	}
	if o.NumberOfRvaAndSizes > certificateTable && o.DataDirectory[certificateTable].Size != 0 {
		return nil, fmt.Errorf("is signed; the signature would not cover what is appended")
	}
	// debug/pe has read both headers, so that these offsets lie inside the file.
	coff := int(binary.LittleEndian.Uint32(stub[0x3c:]))
	h := &header{
		coff:          coff,
		opt:           coff + coffSize,
		tableEnd:      coff + coffSize + int(f.SizeOfOptionalHeader) + len(f.Sections)*sectionHeaderSize,
		sections:      len(f.Sections),
		sizeOfHeaders: o.SizeOfHeaders,
		sectionAlign:  o.SectionAlignment,
		fileAlign:     int64(o.FileAlignment),
		initialized:   o.SizeOfInitializedData,
	}
	for i := range f.Sections {
		if e := stub[h.tableEnd-(i+1)*sectionHeaderSize:]; e[0] == '/' {
			// The name stands in the string table, which is cut off.
			return nil, fmt.Errorf("section with a name longer than 8 bytes")
		}
	}
	return h, h.addSections(f, uint64(len(stub)))
}

// addSections finds where the stub's sections end, in the file and in memory.
func (h *header) addSections(f *pe.File, size uint64) error {
	data := uint64(h.sizeOfHeaders)
	if data > size {
		return fmt.Errorf("headers of %d bytes in a file of %d", data, size)
	}
	for _, s := range f.Sections {
		switch s.Name {
		case OSRelease, CommandLine, Uname, PolicyKey, PolicySignature, Initrd, Linux:
			return fmt.Errorf("holds a section %s already", s.Name)
		}
		if s.Size > 0 && uint64(s.Offset) < uint64(h.sizeOfHeaders) {
			return fmt.Errorf("section %s lies in the headers", s.Name)
		}
		if s.Size > 0 {
			data = max(data, uint64(s.Offset)+uint64(s.Size))
		}
		h.virtualEnd = max(h.virtualEnd, uint64(s.VirtualAddress)+uint64(max(s.VirtualSize, s.Size)))
	}
	if data > size {
		return fmt.Errorf("sections end at %d, the file at %d", data, size)
	}
	h.dataEnd = int(data)
	h.virtualEnd = alignUp(max(h.virtualEnd, uint64(h.sizeOfHeaders)), uint64(h.sectionAlign))
	return nil
}

// patch makes head's fields agree with n more sections, which end in memory at virtual and
// hold the given bytes of data. The stub's symbol table was cut off with all that follows its last
// section; the checksum is 0, "not computed", as firmware does not look at it.
func (h *header) patch(head []byte, n int, virtual, initialized uint64) {
	le := binary.LittleEndian
	le.PutUint16(head[h.coff+coffSections:], uint16(h.sections+n))
	le.PutUint32(head[h.coff+coffSymbolTable:], 0)
	le.PutUint32(head[h.coff+coffSymbols:], 0)
	le.PutUint32(head[h.opt+optInitializedData:], h.initialized+uint32(initialized))
	le.PutUint32(head[h.opt+optSizeOfImage:], uint32(virtual))
	le.PutUint32(head[h.opt+optCheckSum:], 0)
}
