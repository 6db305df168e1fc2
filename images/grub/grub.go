// Package grub boots disks and media by a BIOS. The disk and ISO writers put on them what it makes, the image builder the configuration.
//
//	disk, USB stick: BIOS → boot.img, in the MBR → ┐
//	                                               ├→ core image, in the BIOS boot partition → grub.cfg, on the ESP → Linux
//	CD: BIOS → cdboot.img, named by El Torito ───→ ┘
//
// GRUB comes in parts, from Debian's package grub-pc-bin. They are put together here: grub-mkimage, which does the same, is linked to the C
// library of its Debian and runs on no other machine. The same package gives the same bytes.
package grub

import (
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

const (
	sector   = 512
	cdSector = 2048

	// mbrCode is the size of the code in an MBR; what follows belongs to the disk.
	mbrCode = 440
	// CDCode is the size of the code that a CD is booted by. It stands right before the core image.
	CDCode = cdSector
	// maxCore is the size of the largest core image, as grub-mkimage has it: it is loaded below 0x78000.
	maxCore = 0x78000 - 0x9000
)

// Offsets in GRUB's parts, which its include/grub/offsets.h and include/grub/i386/pc/boot.h fix.
const (
	bootCoreSector = 0x5c // in boot.img: where the core image begins
	bootDriveCheck = 0x66 // a jump, to be taken out for hard disks: some BIOSes say that they booted from a floppy
	diskbootList   = 0x1f4
	loadedAt       = 0x820 // the segment that the second sector of the core image is loaded to
	cdBootInfo     = 8     // in cdboot.img: what mkisofs calls the boot information table
	volumeSector   = 16    // of every ISO 9660 volume
)

// Loader is GRUB, put together.
type Loader struct {
	boot, cd []byte
	core     []byte // without places
}

// Parts is where the package keeps them.
const Parts = "usr/lib/grub/i386-pc"

// Open makes a loader of the unpacked package in dir.
func Open(dir string) (*Loader, error) {
	p := parts{dir: filepath.Join(dir, Parts)}
	l := &Loader{boot: p.read("boot.img", sector), cd: p.read("cdboot.img", CDCode)}
	l.core = p.core()
	if p.err != nil {
		return nil, fmt.Errorf("GRUB: %w", p.err)
	}
	if len(l.core) > maxCore {
		return nil, fmt.Errorf("GRUB: the core image has %d bytes; at most %d can be loaded", len(l.core), maxCore)
	}
	return l, nil
}

// parts reads files of the package until one fails.
type parts struct {
	dir string
	err error
}

// read returns a file, which must have so many bytes unless size is 0. After an error it returns zeros.
func (p *parts) read(name string, size int) []byte {
	if p.err != nil {
		return make([]byte, size)
	}
	data, err := os.ReadFile(filepath.Join(p.dir, name))
	if err == nil && size != 0 && len(data) != size {
		err = fmt.Errorf("%s: %d bytes; want %d", name, len(data), size)
	}
	if err != nil {
		p.err = err
		return make([]byte, size)
	}
	return data
}

// Install writes what a BIOS boots from a disk or a stick into f: the MBR's code, which leaves the partition tables alone, and the core image
// from start up to end.
func (l *Loader) Install(f io.WriterAt, start, end int64) error {
	core := l.imageAt(start)
	if int64(len(core)) > end-start {
		return fmt.Errorf("GRUB: the core image has %d bytes; the BIOS boot partition %d", len(core), end-start)
	}
	if _, err := f.WriteAt(l.mbr(start), 0); err != nil {
		return err
	}
	_, err := f.WriteAt(core, start)
	return err
}

// mbr returns the code that loads the core image from start.
func (l *Loader) mbr(start int64) []byte {
	b := append([]byte(nil), l.boot[:mbrCode]...)
	binary.LittleEndian.PutUint64(b[bootCoreSector:], uint64(start/sector))
	copy(b[bootDriveCheck:], []byte{0x90, 0x90}) // two NOPs
	return b
}

// imageAt returns the core image that lies at start. Its first sector loads the others.
func (l *Loader) imageAt(start int64) []byte {
	b := append([]byte(nil), l.core...)
	le := binary.LittleEndian
	le.PutUint64(b[diskbootList:], uint64(start/sector+1))
	le.PutUint16(b[diskbootList+8:], uint16((len(b)-1)/sector))
	le.PutUint16(b[diskbootList+10:], loadedAt)
	return b
}

// CDSize returns how long what a BIOS boots from a CD is: the code that CD returns, and the core image.
func (l *Loader) CDSize() int64 { return int64(CDCode + len(l.core)) }

// CD returns the code that a BIOS loads from a CD. It loads the core image that lies at start, right behind it.
func (l *Loader) CD(start int64) []byte {
	b := append([]byte(nil), l.cd...)
	image := append(append([]byte(nil), b...), l.imageAt(start)...)
	for len(image)%4 != 0 {
		image = append(image, 0)
	}
	le := binary.LittleEndian
	var sum uint32
	for i := 64; i < len(image); i += 4 {
		sum += le.Uint32(image[i:])
	}
	for i, v := range []uint32{volumeSector, uint32((start - CDCode) / cdSector), uint32(l.CDSize()), sum} {
		le.PutUint32(b[cdBootInfo+4*i:], v)
	}
	return b
}
