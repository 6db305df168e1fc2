package qcow2

import (
	"bytes"
	"io"
	"os"

	"github.com/klauspost/compress/flate"

	"github.com/cosi-os/cosi/images/internal/inorder"
	"github.com/cosi-os/cosi/images/internal/sparse"
)

// window is the history that QEMU gives its decoder: inflateInit2 with 12 bits.
const window = 1 << 12

// packed is a cluster ready to be stored.
type packed struct {
	index      int64
	data       []byte // a whole cluster, or the deflate stream of one; empty for zeros
	compressed bool
}

// compressAll calls add with each cluster of raw that holds data, in order. It compresses on as many goroutines as there are processors,
// and all have ended when it returns.
func compressAll(raw *os.File, size int64, add func(packed) error) error {
	clusters := func(yield func(int64) bool) error { return sparse.Blocks(raw, size, cluster, yield) }
	worker := func() (func(int64) (packed, error), error) {
		p, err := newPacker()
		return func(index int64) (packed, error) { return p.pack(raw, index) }, err
	}
	return inorder.Each(clusters, worker, func(c packed) error {
		if len(c.data) == 0 {
			return nil
		}
		return add(c)
	})
}

// packer is one worker's memory.
type packer struct {
	w     *flate.Writer
	plain []byte
	out   bytes.Buffer
}

func newPacker() (*packer, error) {
	p := &packer{plain: make([]byte, cluster)}
	var err error
	p.w, err = flate.NewWriterWindow(&p.out, window)
	return p, err
}

// pack reads and compresses a cluster. The last one of a disk is filled up with zeros.
func (p *packer) pack(raw io.ReaderAt, index int64) (packed, error) {
	n, err := raw.ReadAt(p.plain, index*cluster)
	if err != nil && err != io.EOF {
		return packed{}, err
	}
	clear(p.plain[n:])
	if sparse.Zero(p.plain) {
		return packed{index: index}, nil
	}
	p.out.Reset()
	p.w.Reset(&p.out)
	if _, err := p.w.Write(p.plain); err != nil {
		return packed{}, err
	}
	if err := p.w.Close(); err != nil {
		return packed{}, err
	}
	if p.out.Len() >= cluster {
		return packed{index, bytes.Clone(p.plain), false}, nil
	}
	return packed{index, bytes.Clone(p.out.Bytes()), true}, nil
}
