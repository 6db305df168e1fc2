package secureboot

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"debug/pe"
	"encoding/asn1"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/cosi-os/cosi/images/content"
)

// Offsets in the optional header of PE32+.
const (
	optCheckSum     = 64
	optCertificates = 112 + 8*pe.IMAGE_DIRECTORY_ENTRY_SECURITY // where the table of certificates is, and its size
	coffSize        = 4 + 20                                    // what is before the optional header, from "PE\0\0" on
)

// The head of an entry of the table of certificates: WIN_CERTIFICATE.
const (
	entryHead        = 8 // length, revision, type
	entryRevision    = 0x0200
	entryPKCS7       = 0x0002
	entryAlign       = 8
	mostCertificates = 1 << 20
)

// program is where in an EFI program lies what a signature does not cover.
type program struct {
	content.Content
	checkSum, directory int64
	table, tableSize    int64 // of certificates, at the file's end; the file's end and 0 without
	headers             uint32
	sections            []*pe.Section
}

func openProgram(c content.Content) (*program, error) {
	f, err := pe.NewFile(c)
	if err != nil {
		return nil, err
	}
	header, ok := f.OptionalHeader.(*pe.OptionalHeader64)
	if !ok || header.NumberOfRvaAndSizes <= pe.IMAGE_DIRECTORY_ENTRY_SECURITY {
		return nil, errors.New("no program of a 64-bit machine that can be signed")
	}
	coff := make([]byte, 4)
	if _, err := c.ReadAt(coff, 0x3c); err != nil {
		return nil, err
	}
	opt := int64(binary.LittleEndian.Uint32(coff)) + coffSize
	p := &program{Content: c, checkSum: opt + optCheckSum, directory: opt + optCertificates, table: c.Size(), headers: header.SizeOfHeaders, sections: f.Sections}
	// Of this directory alone the address is an offset in the file.
	if d := header.DataDirectory[pe.IMAGE_DIRECTORY_ENTRY_SECURITY]; d.Size != 0 {
		p.table, p.tableSize = int64(d.VirtualAddress), int64(d.Size)
		if p.table+p.tableSize != c.Size() || p.table < p.directory+8 {
			return nil, errors.New("its table of certificates is not at its end")
		}
	}
	return p, nil
}

// digest is the hash that a signature covers (Windows Authenticode Portable Executable Signature Format, "Calculating the PE Image Hash"): all but
// the checksum, where the table of certificates is, and the table.
func (p *program) digest() ([]byte, error) {
	h := sha256.New()
	for _, covered := range [][2]int64{{0, p.checkSum}, {p.checkSum + 4, p.directory}, {p.directory + 8, p.table}} {
		if _, err := io.Copy(h, io.NewSectionReader(p, covered[0], covered[1]-covered[0])); err != nil {
			return nil, err
		}
	}
	h.Write(make([]byte, aligned(p.table)-p.table)) // a signature begins at a multiple of 8
	return h.Sum(nil), nil
}

func aligned(n int64) int64 { return (n + entryAlign - 1) / entryAlign * entryAlign }

// errGaps says that different firmwares would hash different bytes.
var errGaps = errors.New("its sections do not follow one another")

// gapless fails unless a program's sections follow one another, up to its end.
func (p *program) gapless() error {
	end := int64(p.headers)
	sections := slices.SortedFunc(slices.Values(p.sections), func(a, b *pe.Section) int { return cmp.Compare(a.Offset, b.Offset) })
	for _, s := range sections {
		if s.Size == 0 {
			continue
		}
		if int64(s.Offset) != end {
			return errGaps
		}
		end += int64(s.Size)
	}
	if end > p.table {
		return fmt.Errorf("sections end at %d, the file at %d", end, p.table)
	}
	return nil
}

// SignProgram signs an EFI program, which is not signed yet: firmware that trusts the certificate runs it, as long as no byte has changed. What it
// returns reads c.
func (s Signer) SignProgram(c content.Content) (content.Content, error) {
	p, err := openProgram(c)
	if err != nil {
		return nil, err
	}
	if p.tableSize != 0 {
		return nil, errors.New("is signed already")
	}
	if err := p.gapless(); err != nil {
		return nil, err
	}
	digest, err := p.digest()
	if err != nil {
		return nil, err
	}
	what, err := indirectData(digest)
	if err != nil {
		return nil, err
	}
	signed, err := s.signMessage(oidIndirectData, what)
	if err != nil {
		return nil, err
	}
	whole, err := wrap(signed)
	if err != nil {
		return nil, err
	}
	table := binary.LittleEndian.AppendUint32(nil, uint32(entryHead+len(whole)))
	table = binary.LittleEndian.AppendUint16(table, entryRevision)
	table = append(binary.LittleEndian.AppendUint16(table, entryPKCS7), whole...)
	table = append(table, make([]byte, aligned(int64(len(table)))-int64(len(table)))...)

	head := make([]byte, p.directory+8)
	if _, err := c.ReadAt(head, 0); err != nil {
		return nil, err
	}
	clear(head[p.checkSum : p.checkSum+4]) // "not computed": firmware does not look at it
	binary.LittleEndian.PutUint32(head[p.directory:], uint32(aligned(p.table)))
	binary.LittleEndian.PutUint32(head[p.directory+4:], uint32(len(table)))
	all := &content.Joined{}
	all.Append(bytes.NewReader(head))
	all.Append(io.NewSectionReader(c, int64(len(head)), p.table-int64(len(head))))
	all.Align(entryAlign)
	all.Append(bytes.NewReader(table))
	return all, nil
}

var (
	oidIndirectData = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 311, 2, 1, 4}
	oidImageData    = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 311, 2, 1, 15}
)

// indirectData is what a program's signature is over: SpcIndirectDataContent, which names the program's hash.
func indirectData(digest []byte) ([]byte, error) {
	// SpcPeImageData: no flags, and a file's name that is there for old readers' sake.
	name := asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 0, Bytes: utf16("<<<Obsolete>>>", binary.BigEndian)}
	link := name
	for _, tag := range []int{2, 0} {
		der, err := asn1.Marshal(link)
		if err != nil {
			return nil, err
		}
		link = tagged(tag, der)
	}
	type imageData struct {
		Flags asn1.BitString
		File  asn1.RawValue
	}
	type typed struct {
		Type  asn1.ObjectIdentifier
		Value imageData
	}
	return asn1.Marshal(struct {
		Data   typed
		Digest digestInfo
	}{typed{oidImageData, imageData{asn1.BitString{}, link}}, digestInfo{algorithmSHA256, digest}})
}
