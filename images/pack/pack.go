// Package pack compresses finished images for download. The image builder calls it last.
//
// An image is cut into pieces, which are compressed on all processors, each on its own, and put one behind the other. In all three formats
// that is a file like any other (RFC 8878, 3; RFC 1952, 2.2; "The .xz File Format", 2). The same image gives the same bytes on any number
// of processors.
package pack

import (
	"bytes"
	"fmt"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/cosi-os/cosi/images/content"
	"github.com/cosi-os/cosi/images/internal/inorder"
	"github.com/cosi-os/cosi/images/internal/sparse"
)

// Format is how an image is compressed, by the suffix of the file's name.
type Format string

// All formats. Zstandard unpacks fastest, and gzip is everywhere. xz is smallest: what is in an image is compressed already, so that it gains
// 2 % for twenty times the work.
const (
	Zstandard Format = "zst"
	Gzip      Format = "gz"
	XZ        Format = "xz"
)

// piece is a compromise: smaller ones lose what they have in common, of larger ones there are too few for many processors.
const piece = 4 << 20

// Write writes c to w in a format.
func (f Format) Write(w io.Writer, c content.Content) error {
	pieces := func(yield func(int64) bool) error {
		for at := int64(0); at < c.Size() && yield(at); at += piece {
		}
		return nil
	}
	worker := func() (func(int64) ([]byte, error), error) {
		p, err := newPacker(f)
		return func(at int64) ([]byte, error) { return p.pack(c, at) }, err
	}
	err := inorder.Each(pieces, worker, func(data []byte) error {
		_, err := w.Write(data)
		return err
	})
	if err != nil {
		return fmt.Errorf("%s: %w", f, err)
	}
	return nil
}

// packer is one worker's memory.
type packer struct {
	compress func(plain []byte) ([]byte, error)
	plain    []byte
	zeros    []byte // a whole piece of zeros, compressed; nil: there was none yet
}

func newPacker(f Format) (*packer, error) {
	p := &packer{plain: make([]byte, piece)}
	switch f {
	case Zstandard:
		e, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedBetterCompression), zstd.WithEncoderConcurrency(1))
		p.compress = func(plain []byte) ([]byte, error) { return e.EncodeAll(plain, nil), nil }
		return p, err
	case Gzip:
		p.compress = stream(func(w io.Writer) (io.WriteCloser, error) { return gzip.NewWriterLevel(w, gzip.DefaultCompression) })
	case XZ:
		var err error
		p.compress, err = newXZ()
		return p, err
	default:
		return nil, fmt.Errorf("unknown format")
	}
	return p, nil
}

// stream makes a function of a compressor that is an io.Writer.
func stream(open func(io.Writer) (io.WriteCloser, error)) func([]byte) ([]byte, error) {
	return func(plain []byte) ([]byte, error) {
		var out bytes.Buffer
		w, err := open(&out)
		if err != nil {
			return nil, err
		}
		if _, err := w.Write(plain); err != nil {
			return nil, err
		}
		err = w.Close()
		return out.Bytes(), err
	}
}

// pack reads and compresses a piece. Most of a disk is zeros, which are compressed once.
func (p *packer) pack(c content.Content, at int64) ([]byte, error) {
	plain := p.plain[:min(piece, c.Size()-at)]
	if _, err := c.ReadAt(plain, at); err != nil && err != io.EOF {
		return nil, err
	}
	if len(plain) < piece || !sparse.Zero(plain) {
		return p.compress(plain)
	}
	var err error
	if p.zeros == nil {
		p.zeros, err = p.compress(plain)
	}
	return p.zeros, err
}
