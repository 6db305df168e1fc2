package uki

import (
	"debug/pe"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/cosi-os/cosi/images/content"
)

// ErrSigned says that a signature covers the image: whatever is changed in it, no firmware that looks would start it, or no TPM give out what is kept for it.
var ErrSigned = errors.New("is signed")

// maxHead is the most that is read of an image to find its sections: systemd's stub has 100 kB.
const maxHead = 4 << 20

// Extend returns the image that New would have made with more arguments behind those of the command line. It reads the kernel and the initrd
// from image, which stays open as long as the new one is read. The boot server gives each machine arguments of its own this way. It fails with
// ErrSigned if image is signed, for a firmware or a TPM, and if New has not made it.
func Extend(image content.Content, arguments string) (*Image, error) {
	extended, err := extend(image, arguments)
	if err != nil {
		return nil, fmt.Errorf("unified kernel image: %w", err)
	}
	return extended, nil
}

func extend(image content.Content, arguments string) (*Image, error) {
	f, err := pe.NewFile(content.Reader(image))
	if err != nil {
		return nil, err
	}
	o, ok := f.OptionalHeader.(*pe.OptionalHeader64)
	if !ok {
		return nil, errors.New("no PE32+ optional header")
	}
	if o.NumberOfRvaAndSizes > certificateTable && o.DataDirectory[certificateTable].Size != 0 {
		return nil, ErrSigned
	}
	if f.Section(PolicySignature) != nil { // over the arguments, too
		return nil, ErrSigned
	}
	ours, err := appended(f, image.Size())
	if err != nil {
		return nil, err
	}
	stub, err := stubOf(f, image, ours)
	if err != nil {
		return nil, err
	}
	text := func(name string) (string, error) {
		if ours[name] == nil {
			return "", nil
		}
		if ours[name].VirtualSize > maxHead {
			return "", fmt.Errorf("section %s has %d bytes", name, ours[name].VirtualSize)
		}
		data := make([]byte, ours[name].VirtualSize)
		_, err := io.ReadFull(io.NewSectionReader(image, int64(ours[name].Offset), int64(len(data))), data)
		return string(data), err
	}
	part := func(name string) content.Content {
		return io.NewSectionReader(image, int64(ours[name].Offset), int64(ours[name].VirtualSize))
	}
	spec := Spec{Initrd: part(Initrd), Linux: part(Linux)}
	for name, field := range map[string]*string{OSRelease: &spec.OSRelease, CommandLine: &spec.CommandLine, Uname: &spec.Uname} {
		if *field, err = text(name); err != nil {
			return nil, err
		}
	}
	spec.CommandLine += " " + arguments
	return New(stub, spec)
}

// appended are the sections that New has put behind the stub: the last ones of the image, in order, with all their data in it.
func appended(f *pe.File, size int64) (map[string]*pe.Section, error) {
	ours := map[string]*pe.Section{}
	names := []string{OSRelease, CommandLine, Uname, Initrd, Linux}
	for _, s := range f.Sections {
		at := -1
		for i, name := range names {
			if s.Name == name {
				at = i
			}
		}
		switch {
		case at < 0 && len(ours) == 0:
			continue
		case at < 0, ours[s.Name] != nil:
			return nil, fmt.Errorf("section %s is not where New puts it", s.Name)
		case s.VirtualSize > s.Size || int64(s.Offset)+int64(s.Size) > size:
			return nil, fmt.Errorf("section %s ends behind its data", s.Name)
		}
		ours[s.Name] = s
	}
	for _, name := range names[1:] {
		if ours[name] == nil {
			return nil, fmt.Errorf("has no section %s", name)
		}
	}
	return ours, nil
}

// stubOf returns what New was given: what comes before the sections that it has appended, without their headers.
func stubOf(f *pe.File, image content.Content, ours map[string]*pe.Section) ([]byte, error) {
	end := image.Size()
	data := uint32(0)
	for _, s := range ours {
		end = min(end, int64(s.Offset))
		data += s.Size
	}
	if end > maxHead {
		return nil, fmt.Errorf("%d bytes come before the kernel's command line", end)
	}
	stub := make([]byte, end)
	if _, err := io.ReadFull(io.NewSectionReader(image, 0, end), stub); err != nil {
		return nil, err
	}
	coff := int(binary.LittleEndian.Uint32(stub[0x3c:]))
	table := coff + coffSize + int(f.SizeOfOptionalHeader)
	kept := len(f.Sections) - len(ours)
	if table+len(f.Sections)*sectionHeaderSize > len(stub) || coff+coffSize+optSizeOfImage > len(stub) {
		return nil, errors.New("data lies in the headers")
	}
	clear(stub[table+kept*sectionHeaderSize : table+len(f.Sections)*sectionHeaderSize])
	le := binary.LittleEndian
	le.PutUint16(stub[coff+coffSections:], uint16(kept))
	initialized := stub[coff+coffSize+optInitializedData:]
	le.PutUint32(initialized, le.Uint32(initialized)-data)
	return stub, nil
}
