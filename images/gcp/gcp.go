// Package gcp turns a raw disk image into what Google Compute Engine imports: a tar archive, compressed with gzip, with the one file disk.raw,
// whose size is a multiple of 1 GiB. The image builder writes with it.
//
// The archive is of the format that GNU tar calls oldgnu, which has sparse files: zeros are left out. archive/tar reads those and does not write
// them. The same disk and time give the same bytes.
package gcp

import (
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/klauspost/compress/gzip"

	"github.com/cosi-os/cosi/images/content"
	"github.com/cosi-os/cosi/images/internal/sparse"
)

const (
	fileName = "disk.raw"
	// unit is what a disk's size has to be a multiple of.
	unit  = 1 << 30
	block = 512
	// record is what GNU tar fills an archive up to.
	record = 20 * block
)

// Convert writes the archive of raw to w. The disk is filled up with zeros to whole GiB.
func Convert(w io.Writer, raw *os.File, modified time.Time) error {
	if err := convert(w, raw, modified); err != nil {
		return fmt.Errorf("gcp: %w", err)
	}
	return nil
}

func convert(w io.Writer, raw *os.File, modified time.Time) error {
	st, err := raw.Stat()
	if err != nil {
		return err
	}
	extents, err := sparse.Extents(raw, st.Size())
	if err != nil {
		return err
	}
	size := (st.Size() + unit - 1) / unit * unit
	archive := &content.Joined{}
	archive.Append(content.String(string(header(size, modified, extents))))
	for _, e := range extents {
		archive.Append(io.NewSectionReader(raw, e.Start, e.Size))
	}
	archive.Align(block)
	archive.Append(content.String(string(make([]byte, 2*block)))) // the end
	archive.Align(record)
	// One stream, and not one a piece as for people: what Google unpacks it with may not go on behind the first.
	z, err := gzip.NewWriterLevel(w, gzip.DefaultCompression)
	if err != nil {
		return err
	}
	if _, err := io.CopyBuffer(z, content.Reader(archive), make([]byte, 1<<20)); err != nil {
		return err
	}
	return z.Close()
}

// Where a header has what. The numbers are octal, each with a NUL behind it.
const (
	atMode, atUID, atGID, atSize, atTime, atSum, atType, atMagic = 100, 108, 116, 124, 136, 148, 156, 257

	atSparse, atMore, atReal = 386, 482, 483 // extents, whether there are more behind the header, the file's size
	inHeader                 = 4             // extents
	inBlock, atMoreInBlock   = 21, 504       // of the blocks behind it
	extentSize               = 24
)

// header describes the file and says where its data goes. What is stored is only that.
func header(size int64, modified time.Time, extents []sparse.Extent) []byte {
	stored := int64(0)
	for _, e := range extents {
		stored += e.Size
	}
	extents = append(extents[:len(extents):len(extents)], sparse.Extent{Start: size}) // GNU tar's mark for a hole at the end
	b := make([]byte, block)
	copy(b, fileName)
	number(b[atMode:atUID], 0o644)
	number(b[atUID:atGID], 0)
	number(b[atGID:atSize], 0)
	number(b[atSize:atTime], stored)
	number(b[atTime:atSum], modified.Unix())
	b[atType] = 'S'
	copy(b[atMagic:], "ustar  \x00")
	number(b[atReal:atReal+12], size)
	rest := put(b[atSparse:], extents, inHeader)
	b[atMore] = more(rest)
	copy(b[atSum:], "        ")
	sum := int64(0)
	for _, v := range b {
		sum += int64(v)
	}
	number(b[atSum:atSum+7], sum) // a blank stays behind it
	b[atSum+6] = 0
	for len(rest) > 0 {
		next := make([]byte, block)
		rest = put(next, rest, inBlock)
		next[atMoreInBlock] = more(rest)
		b = append(b, next...)
	}
	return b
}

// put writes up to room extents and returns those that are left.
func put(b []byte, all []sparse.Extent, room int) []sparse.Extent {
	n := min(room, len(all))
	for i, e := range all[:n] {
		number(b[i*extentSize:][:extentSize/2], e.Start)
		number(b[i*extentSize+extentSize/2:][:extentSize/2], e.Size)
	}
	return all[n:]
}

func more(rest []sparse.Extent) byte {
	if len(rest) > 0 {
		return 1
	}
	return 0
}

// number fills a field: with octal digits, or if there are too many with a binary number that the first bit marks, as GNU tar does from 8 GiB.
func number(b []byte, n int64) {
	if digits := len(b) - 1; n < 1<<(3*digits) {
		copy(b, fmt.Sprintf("%0*o", digits, n))
		return
	}
	binary.BigEndian.PutUint64(b[len(b)-8:], uint64(n))
	b[0] |= 0x80
}
