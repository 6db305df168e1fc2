package upgrade

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
)

// HeadSize is how much a disk begins with that is not written where it belongs until all the rest is: the MBR with its code, and the
// partition table.
const HeadSize = 34 * 512

// firstUsable is where the first partition may begin.
const firstUsable = 1 << 20

// Disk says how a disk is made of an upgrade. Its part begins with the disk's first HeadSize bytes; behind them is what belongs into the Pieces, one
// after the other.
type Disk struct {
	Part
	// Image is the size of the smallest disk: the partitions and the copy of their table.
	Image int64 `json:"image"`
	// RootAt and KernelAt are where root and kernel belong.
	RootAt   int64   `json:"root_at"`
	KernelAt int64   `json:"kernel_at"`
	Pieces   []Piece `json:"pieces"`
}

// Piece is a part of the disk: Size bytes, and so many zeros behind them.
type Piece struct {
	At    int64 `json:"at"`
	Size  int64 `json:"size"`
	Zeros int64 `json:"zeros,omitempty"`
}

func (d *Disk) check(root, kernel int64) error {
	all, at := d.Pieces, int64(firstUsable)
	want := int64(HeadSize)
	for i, p := range all {
		if p.At < at || p.Size < 0 || p.Zeros < 0 || p.Size > d.Image || p.Zeros > d.Image || p.At+p.Size+p.Zeros > d.Image {
			return fmt.Errorf("pieces[%d]: %d and %d bytes at %d", i, p.Size, p.Zeros, p.At)
		}
		at, want = p.At+p.Size+p.Zeros, want+p.Size
	}
	if want != d.Size {
		return fmt.Errorf("%d bytes; want %d for its pieces", d.Size, want)
	}
	for _, part := range []struct {
		name     string
		at, size int64
	}{{"root_at", d.RootAt, root}, {"kernel_at", d.KernelAt, kernel}} {
		if part.at < firstUsable || part.size > d.Image || part.at > d.Image-part.size {
			return fmt.Errorf("%s: %d bytes at %d of %d", part.name, part.size, part.at, d.Image)
		}
	}
	return nil
}

// Disk writes the pieces of a disk to w, and returns its head. Kernel has returned. It fails, when all was written, if it was not what the
// manifest says, or if the manifest has no Disk.
func (u *Reader) Disk(w io.WriterAt) (head []byte, err error) {
	d := u.Manifest.Disk
	if d == nil {
		return nil, errors.New("upgrade: it has no part for a whole disk")
	}
	out := &placed{w: w, pieces: d.Pieces}
	if err := u.following(out, diskName, d.Part); err != nil {
		return nil, err
	}
	return out.head, nil
}

// placed writes a stream in pieces.
type placed struct {
	w      io.WriterAt
	head   []byte
	pieces []Piece
	done   int64 // of the first
}

func (p *placed) Write(b []byte) (n int, err error) {
	if k := min(HeadSize-len(p.head), len(b)); k > 0 {
		p.head = append(p.head, b[:k]...)
		b, n = b[k:], k
	}
	if err := p.finished(); err != nil { // pieces of zeros alone come before the first byte
		return n, err
	}
	for len(b) > 0 && len(p.pieces) > 0 {
		piece := p.pieces[0]
		k := min(piece.Size-p.done, int64(len(b)))
		if _, err := p.w.WriteAt(b[:k], piece.At+p.done); err != nil {
			return n, err
		}
		b, n, p.done = b[k:], n+int(k), p.done+k
		if err := p.finished(); err != nil {
			return n, err
		}
	}
	return n, nil
}

// finished writes the zeros behind pieces that are written.
func (p *placed) finished() error {
	if len(p.head) < HeadSize {
		return nil
	}
	for len(p.pieces) > 0 && p.done == p.pieces[0].Size {
		piece := p.pieces[0]
		for at := int64(0); at < piece.Zeros; at += int64(len(zeros)) {
			if _, err := p.w.WriteAt(zeros[:min(piece.Zeros-at, int64(len(zeros)))], piece.At+piece.Size+at); err != nil {
				return err
			}
		}
		p.pieces, p.done = p.pieces[1:], 0
	}
	return nil
}

var zeros [1 << 20]byte

// Check reads root, kernel and pieces from a disk that was made of all this, whose head is elsewhere yet. It fails unless they are as they should be.
func (m *Manifest) Check(r io.ReaderAt, head []byte) error {
	d := m.Disk
	for _, part := range []struct {
		name string
		at   int64
		Part
	}{{rootName, d.RootAt, m.Root.Part}, {kernelName, d.KernelAt, m.Kernel}} {
		if err := part.Check(io.NewSectionReader(r, part.at, part.Size)); err != nil {
			return fmt.Errorf("%s: %w", part.name, err)
		}
	}
	h := sha256.New()
	h.Write(head)
	for _, p := range d.Pieces {
		if err := copyFrom(h, r, p.At, p.Size); err != nil {
			return err
		}
		if err := copyFrom(onlyZeros{}, r, p.At+p.Size, p.Zeros); err != nil {
			return fmt.Errorf("behind %d: %w", p.At+p.Size, err)
		}
	}
	return d.is(h)
}

func copyFrom(w io.Writer, r io.ReaderAt, at, size int64) error {
	n, err := io.CopyBuffer(w, struct{ io.Reader }{io.NewSectionReader(r, at, size)}, make([]byte, 1<<20))
	if err == nil && n != size {
		err = io.ErrUnexpectedEOF
	}
	return err
}

// Check reads r to its end. It fails unless that is what p says.
func (p Part) Check(r io.Reader) error {
	h := sha256.New()
	if _, err := io.CopyBuffer(h, struct{ io.Reader }{r}, make([]byte, 1<<20)); err != nil {
		return err
	}
	return p.is(h)
}

// is fails unless h has hashed what p says.
func (p Part) is(h hash.Hash) error {
	if got := hex.EncodeToString(h.Sum(nil)); got != p.SHA256 {
		return fmt.Errorf("its SHA-256 is %s; want %s", got, p.SHA256)
	}
	return nil
}

// onlyZeros takes nothing else.
type onlyZeros struct{}

func (onlyZeros) Write(b []byte) (int, error) {
	for i, c := range b {
		if c != 0 {
			return i, errors.New("it is not empty")
		}
	}
	return len(b), nil
}
