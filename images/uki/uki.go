// Package uki makes unified kernel images: one EFI program that holds systemd's boot stub,
// a kernel, its initramfs and its command line. The image builder puts it on the ESP of
// disks, into the ISO's boot image and beside them for PXE.
//
// The sections are those of the UAPI Group's specification "Unified Kernel Image"
// (https://uapi-group.org/specifications/specs/unified_kernel_image/); the container is
// Microsoft's PE/COFF. The same stub and Spec give the same bytes.
package uki

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math"

	"github.com/cosi-os/cosi/images/content"
)

// Spec is what is put behind the stub.
type Spec struct {
	// OSRelease is os-release(5): boot loaders take the menu's title and version from it. Empty, there is no such section, and the stub
	// hands the kernel the initrd as it is. Otherwise it makes a copy with a second archive behind (/.extra/os-release), which costs the
	// initrd's size in memory, and which the kernel's lz4 decoder takes for damage.
	OSRelease   string
	CommandLine string
	Uname       string // the kernel's release, as uname -r prints it
	// PolicyKey is the public key of who signs policies for TPMs, in PEM, and PolicySignature his signature: see package pcr. Empty, there are no such
	// sections. The stub hands both to the kernel, in a copy of the initrd as with OSRelease.
	PolicyKey, PolicySignature string
	Initrd                     content.Content
	Linux                      content.Content // a kernel with its own EFI stub
}

// Section names, in the order in which New appends them. The kernel comes last: a stub that
// runs it in place may then let it grow.
const (
	OSRelease       = ".osrel"
	CommandLine     = ".cmdline"
	Uname           = ".uname"
	PolicyKey       = ".pcrpkey"
	PolicySignature = ".pcrsig"
	Initrd          = ".initrd"
	Linux           = ".linux"
)

// Image is a unified kernel image, ready to be read. It holds no copy of the initramfs and the
// kernel: it reads them from the Spec's contents.
type Image struct {
	content.Joined
	sections map[string][2]int64
}

// Section returns where the data of a section that New appended lies in the image; zeros if it has none of the name.
func (img *Image) Section(name string) (offset, size int64) {
	return img.sections[name][0], img.sections[name][1]
}

// section is one entry of the PE section table and what it points at.
type section struct {
	name string
	data content.Content
}

func (s Spec) sections() []section {
	var all []section
	text := func(name, text string, always bool) {
		if always || text != "" {
			all = append(all, section{name, content.String(text)})
		}
	}
	text(OSRelease, s.OSRelease, false)
	text(CommandLine, s.CommandLine, true)
	text(Uname, s.Uname, true)
	text(PolicyKey, s.PolicyKey, false)
	text(PolicySignature, s.PolicySignature, false)
	return append(all, section{Initrd, s.Initrd}, section{Linux, s.Linux})
}

// Characteristics of an appended section, from the PE specification.
const (
	initializedData = 0x00000040
	memoryRead      = 0x40000000
)

// New lays out the image of s behind stub. It fails if the stub is no x86-64 or arm64 EFI
// program, is signed, holds one of our sections already, or has no room in its header for the
// section headers; and if the kernel is not an EFI program.
func New(stub []byte, s Spec) (*Image, error) {
	if s.Linux == nil || s.Initrd == nil {
		return nil, fmt.Errorf("unified kernel image: needs a kernel and an initrd")
	}
	if err := checkKernel(s.Linux); err != nil {
		return nil, fmt.Errorf("unified kernel image: kernel: %w", err)
	}
	h, err := parseStub(stub)
	if err != nil {
		return nil, fmt.Errorf("unified kernel image: stub: %w", err)
	}
	img, err := h.join(stub, s.sections())
	if err != nil {
		return nil, fmt.Errorf("unified kernel image: %w", err)
	}
	return img, nil
}

// join writes the section headers into a copy of the stub and puts the sections' data behind it.
func (h *header) join(stub []byte, sections []section) (*Image, error) {
	if need, room := len(sections)*sectionHeaderSize, int(h.sizeOfHeaders)-h.tableEnd; need > room {
		return nil, fmt.Errorf("stub: %d section headers need %d bytes of its header, %d are free", len(sections), need, max(room, 0))
	}
	head := bytes.Clone(stub[:h.dataEnd])
	img := &Image{sections: map[string][2]int64{}}
	img.Append(bytes.NewReader(head))
	img.Align(h.fileAlign)

	virtual, initialized := h.virtualEnd, uint64(0)
	for i, s := range sections {
		raw := img.Size()
		img.sections[s.name] = [2]int64{raw, s.data.Size()}
		img.Append(s.data)
		img.Align(h.fileAlign)
		if img.Size() > math.MaxUint32 || virtual+uint64(s.data.Size()) > math.MaxUint32-uint64(h.sectionAlign) {
			return nil, fmt.Errorf("section %s ends above 4 GiB", s.name)
		}
		e := head[h.tableEnd+i*sectionHeaderSize:][:sectionHeaderSize]
		clear(e)
		copy(e, s.name)
		put := func(off int, v uint64) { binary.LittleEndian.PutUint32(e[off:], uint32(v)) }
		put(8, uint64(s.data.Size())) // VirtualSize: what the stub takes for the section's length
		put(12, virtual)
		put(16, uint64(img.Size()-raw))
		put(20, uint64(raw))
		put(36, initializedData|memoryRead)
		virtual = alignUp(virtual+uint64(s.data.Size()), uint64(h.sectionAlign))
		initialized += uint64(img.Size() - raw)
	}
	h.patch(head, len(sections), virtual, initialized)
	return img, nil
}

// checkKernel refuses a kernel that the stub could not start: it is loaded as an EFI program.
func checkKernel(k content.Content) error {
	var dos [64]byte
	if _, err := k.ReadAt(dos[:], 0); err != nil && err != io.EOF {
		return err
	}
	var sig [4]byte
	if string(dos[:2]) == "MZ" {
		if _, err := k.ReadAt(sig[:], int64(binary.LittleEndian.Uint32(dos[0x3c:]))); err != nil && err != io.EOF {
			return err
		}
	}
	if string(sig[:]) != "PE\x00\x00" {
		return fmt.Errorf("not an EFI program (built without CONFIG_EFI_STUB, or compressed?)")
	}
	return nil
}

func alignUp(n, a uint64) uint64 { return (n + a - 1) / a * a }
