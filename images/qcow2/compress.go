package qcow2

import (
	"bytes"
	"errors"
	"io"
	"os"
	"runtime"

	"github.com/klauspost/compress/flate"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// window is the history that QEMU gives its decoder: inflateInit2 with 12 bits.
const window = 1 << 12

// packed is a cluster ready to be stored.
type packed struct {
	index      int64
	data       []byte // a whole cluster, or the deflate stream of one; empty for zeros
	compressed bool
}

// job is a cluster on its way; done receives it when it is packed.
type job struct {
	index int64
	done  chan packed
}

// compressAll calls add with each cluster of raw that holds data, in order. It reads and
// compresses on as many goroutines as there are processors, and all have ended when it returns.
func compressAll(raw *os.File, size int64, add func(packed) error) error {
	workers := runtime.GOMAXPROCS(0)
	var g errgroup.Group
	work := make(chan job, workers)
	inOrder := make(chan job, 16*workers) // bounds how far the workers run ahead
	stop := make(chan struct{})
	g.Go(func() error {
		defer close(work)
		defer close(inOrder)
		return eachDataCluster(raw, size, func(index int64) bool {
			j := job{index, make(chan packed, 1)}
			for _, c := range []chan job{inOrder, work} {
				select {
				case c <- j:
				case <-stop:
					return false
				}
			}
			return true
		})
	})
	for range workers {
		g.Go(func() error { return compressJobs(raw, work) })
	}
	g.Go(func() error {
		defer close(stop)
		for j := range inOrder {
			c, ok := <-j.done
			if !ok {
				return nil // its worker returns the error
			}
			if len(c.data) == 0 {
				continue
			}
			if err := add(c); err != nil {
				return err
			}
		}
		return nil
	})
	return g.Wait()
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

// compressJobs packs clusters until work is closed. After an error it only drains.
func compressJobs(raw io.ReaderAt, work <-chan job) error {
	p, err := newPacker()
	for j := range work {
		var c packed
		if err == nil {
			c, err = p.pack(raw, j.index)
		}
		if err == nil {
			j.done <- c
		}
		close(j.done)
	}
	return err
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
