package qcow2

import (
	"bytes"
	"errors"
	"io"
	"os"

	"github.com/klauspost/compress/flate"
	"golang.org/x/sys/unix"

	"github.com/cosi-os/cosi/images/internal/inorder"
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
	clusters := func(yield func(int64) bool) error { return eachDataCluster(raw, size, yield) }
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

// eachDataCluster calls do with the index of each cluster that is not all hole, until it returns
// false.
func eachDataCluster(raw *os.File, size int64, do func(int64) bool) error {
	fd := int(raw.Fd())
	for next := int64(0); next < size; {
		start, err := unix.Seek(fd, next, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			return nil // only a hole is left
		}
		if err != nil {
			return os.NewSyscallError("lseek SEEK_DATA", err)
		}
		end, err := unix.Seek(fd, start, unix.SEEK_HOLE)
		if err != nil {
			return os.NewSyscallError("lseek SEEK_HOLE", err)
		}
		first := max(start/cluster, (next+cluster-1)/cluster)
		last := (min(end, size) + cluster - 1) / cluster
		for i := first; i < last; i++ {
			if !do(i) {
				return nil
			}
		}
		next = max(end, last*cluster)
	}
	return nil
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
	if allZero(p.plain) {
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

var zeroBlock [4096]byte

// allZero compares b with itself moved by one byte: the standard library's fastest way.
func allZero(b []byte) bool { return b[0] == 0 && bytes.Equal(b[1:], b[:len(b)-1]) }
