package upgrade

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/cosi-os/cosi/api/layout/fat"
	"github.com/cosi-os/cosi/api/layout/gpt"
)

const (
	mib = 1 << 20
	// begun is what the first sector of a disk says from the first write of an installation to the last. No BIOS starts it, and no partition
	// table is read behind it.
	begun = "COSI is being installed on this disk.\n"
	// samples is at how many places a disk is looked at beside its ends, its partitions and where file systems say what they are.
	samples    = 256
	sampleSize = 4096
	// headSize is how much of each partition is looked at: the superblocks of all usual file systems are there.
	headSize = 128 << 10
)

// contents is what a disk holds, as far as one can see.
type contents struct {
	// found names it; empty: nothing.
	found []string
	// medium: it is an installation medium of ours.
	medium bool
	// state: it has the state of a node.
	state bool
	// fingerprint is another when what was looked at is another.
	fingerprint string
}

// signatures are what file systems and other formats are known by, where a disk holds one without partitions.
var signatures = []struct {
	at          int
	magic, name string
}{
	{0, "LUKS\xba\xbe", "a LUKS volume"}, {0, "XFSB", "an xfs file system"}, {3, "NTFS    ", "an NTFS file system"},
	{82, "FAT32   ", "a FAT file system"}, {54, "FAT1", "a FAT file system"}, {512, "LABELONE", "an LVM volume"},
	{1080, "\x53\xef", "an ext file system"}, {4086, "SWAPSPACE2", "swap space"}, {32769, "CD001", "an ISO 9660 file system"},
	{65600, "_BHRfS_M", "a btrfs file system"},
}

// volumeID is where an ISO 9660 file system has its label, and ours is that of all media: see images/build.
const (
	volumeID = 16*2048 + 40
	ourID    = "COSI                            "
)

// inspect looks at a disk of size bytes. It reads the first and the last MiB, the beginnings of partitions, and places all over the disk.
func inspect(d io.ReaderAt, size int64) (c contents, err error) {
	if size < 4*mib {
		return c, fmt.Errorf("a disk of %d bytes", size)
	}
	h := sha256.New()
	fmt.Fprintln(h, size)
	first, last := make([]byte, mib), make([]byte, mib)
	if _, err := d.ReadAt(first, 0); err != nil {
		return c, err
	}
	if _, err := d.ReadAt(last, size-mib); err != nil {
		return c, err
	}
	h.Write(first)
	h.Write(last)
	c.medium = string(first[32769:32774]) == "CD001" && string(first[volumeID:][:len(ourID)]) == ourID
	for _, s := range signatures {
		if string(first[s.at:][:len(s.magic)]) == s.magic {
			c.found = append(c.found, s.name)
		}
	}
	if bytes.HasPrefix(first, []byte(keeping)) {
		c.found = append(c.found, "a state partition that an installation keeps, which was cut off")
	}
	table, partitions := c.partitionsOf(d, first, size)
	if table != "" {
		c.found = append(c.found, table)
	}
	head := make([]byte, headSize)
	for _, at := range partitions {
		head := head[:max(0, min(headSize, size-at))]
		if _, err := d.ReadAt(head, at); err != nil {
			return c, err
		}
		h.Write(head)
	}
	data, sample := !empty(first) || !empty(last), make([]byte, sampleSize)
	for i := range int64(samples) {
		at := size / samples * i / sampleSize * sampleSize
		if _, err := d.ReadAt(sample, at); err != nil {
			return c, err
		}
		h.Write(sample)
		data = data || !empty(sample)
	}
	if data && len(c.found) == 0 {
		c.found = []string{"data"}
	}
	if bytes.HasPrefix(first, []byte(begun)) { // what was there was to go
		c.found, c.state = nil, false
	}
	c.fingerprint = hex.EncodeToString(h.Sum(nil)[:16])
	return c, nil
}

func empty(b []byte) bool { return len(bytes.TrimLeft(b, "\x00")) == 0 }

// partitionsOf describes the partition table of a disk that begins with first, if it has one, and returns where its partitions begin.
func (c *contents) partitionsOf(d io.ReaderAt, first []byte, size int64) (is string, all []int64) {
	if table, err := gpt.Read(d, size); err == nil {
		var names []string
		for _, p := range table.Partitions {
			if p.Type == (gpt.GUID{}) {
				continue
			}
			all, names = append(all, p.Start), append(names, fmt.Sprintf("%q", p.Name))
			c.state = c.state || isState(p)
			if version := versionOn(d, p); version != "" {
				is = "COSI " + version + ", "
			}
		}
		return fmt.Sprintf("%sa partition table with %d partitions (%s)", is, len(names), strings.Join(names, ", ")), all
	}
	if first[510] != 0x55 || first[511] != 0xaa {
		return "", nil
	}
	for i := range 4 {
		entry := first[446+16*i:][:16]
		if at := int64(binary.LittleEndian.Uint32(entry[8:])) * gpt.Sector; entry[4] != 0 && at > 0 && at < size {
			all = append(all, at)
		}
	}
	return fmt.Sprintf("a boot sector with %d partitions", len(all)), all
}

// versionOn is the version of COSI that is booted from a partition, if one is.
func versionOn(d io.ReaderAt, p gpt.Partition) string {
	if p.Name != espName {
		return ""
	}
	system, err := fat.Open(seen{io.NewSectionReader(d, p.Start, p.End-p.Start)})
	if err != nil {
		return ""
	}
	all, err := readEntries(system, uefi)
	if err != nil || len(all) == 0 {
		return ""
	}
	return all[0].Version
}

// seen is a file system that is looked at.
type seen struct{ io.ReaderAt }

func (seen) WriteAt([]byte, int64) (int, error) { return 0, errReadOnly }

func (seen) Sync() error { return nil }

// String names all that was found.
func (c contents) String() string {
	if len(c.found) == 0 {
		return "nothing"
	}
	return strings.Join(slices.Compact(c.found), ", ")
}
