package rootfs

import (
	"encoding/binary"
	"io"
	"runtime"

	"github.com/pierrec/lz4/v4"
	"golang.org/x/sync/errgroup"

	"github.com/cosi-os/cosi/images/content"
)

// extentSize is how much is compressed together. The kernel decompresses an extent as far as it needs it: smaller ones cost less of
// what is not needed, larger ones are smaller in the image.
const extentSize = 64 << 10

// extent is a part of a file as the image holds it.
type extent struct {
	size int    // of the part
	data []byte // whole blocks: compressed behind zeros, or as it is with zeros behind
	lz4  bool
}

// compressAll returns the extents of every content that gets smaller by them, nil for the others. The same content gives the same bytes.
func compressAll(all []content.Content) ([][]extent, error) {
	out := make([][]extent, len(all))
	var g errgroup.Group
	g.SetLimit(runtime.GOMAXPROCS(0))
	for i, c := range all {
		extents := make([]extent, (c.Size()+extentSize-1)/extentSize)
		out[i] = extents
		for k := range extents {
			g.Go(func() (err error) {
				extents[k], err = compress(io.NewSectionReader(c, int64(k)*extentSize, min(extentSize, c.Size()-int64(k)*extentSize)))
				return err
			})
		}
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	for i, c := range all {
		if stored(out[i]) >= blocks(int(c.Size())) {
			out[i] = nil
		}
	}
	return out, nil
}

// stored is how many blocks extents take.
func stored(extents []extent) (n int) {
	for _, e := range extents {
		n += len(e.data) / blockSize
	}
	return n
}

func compress(part *io.SectionReader) (extent, error) {
	e := extent{size: int(part.Size())}
	plain := make([]byte, blocks(e.size)*blockSize)
	if _, err := io.ReadFull(part, plain[:e.size]); err != nil {
		return e, err
	}
	packed := make([]byte, lz4.CompressBlockBound(e.size))
	n, err := lz4.CompressBlockHC(plain[:e.size], packed, lz4.Level1, nil, nil) // Level9 takes twice the time for a thousandth less
	if err != nil {
		return e, err
	}
	if e.data = plain; n == 0 || blocks(n) >= blocks(e.size) {
		return e, nil
	}
	e.lz4, e.data = true, make([]byte, blocks(n)*blockSize)
	copy(e.data[len(e.data)-n:], packed[:n])
	return e, nil
}

// index is what follows the inode of a compressed file whose extents begin at the block first.
func index(extents []extent, first int) []byte {
	b, _ := binary.Append(nil, binary.LittleEndian, mapHeader{Advise: adviseClusters, Algorithm: lz4Number})
	for _, e := range extents {
		for k := range blocks(e.size) {
			b, _ = binary.Append(b, binary.LittleEndian, e.cluster(k, first))
		}
		first += len(e.data) / blockSize
	}
	return b
}

// cluster is the index's word on the kth logical block of an extent that is stored at the block first.
func (e extent) cluster(k, first int) cluster {
	all, tail := blocks(e.size), e.size%blockSize
	switch {
	case !e.lz4: // the kernel takes one block at a time
		return cluster{Type: clusterPlain, Where: uint32(first + k)}
	case k == 0:
		return cluster{Type: clusterHead, Where: uint32(first)}
	case k == all-1 && tail > 0: // the file ends here: an extent that would begin there has no data
		return cluster{Type: clusterPlain, Offset: uint16(tail)}
	}
	if tail > 0 {
		all--
	}
	back := k
	if k == 1 {
		back = blockCount | len(e.data)/blockSize
	}
	return cluster{Type: clusterInside, Where: uint32(back) | uint32(all-k)<<16}
}
