package content

import (
	"io"
	"sort"
)

// Joined is a sequence of contents read as one, each at an offset of its own. Bytes between
// them read as zero.
type Joined struct {
	parts []part
	size  int64
}

type part struct {
	off int64
	c   Content
}

// Append puts c at the end of j.
func (j *Joined) Append(c Content) {
	if c.Size() > 0 {
		j.parts = append(j.parts, part{j.size, c})
	}
	j.size += c.Size()
}

// Align extends j with zeros to a multiple of n.
func (j *Joined) Align(n int64) { j.size = (j.size + n - 1) / n * n }

// Size returns the length of j.
func (j *Joined) Size() int64 { return j.size }

// ReadAt reads as io.ReaderAt says.
func (j *Joined) ReadAt(p []byte, off int64) (int, error) {
	if off >= j.size {
		return 0, io.EOF
	}
	var eof error
	if rest := j.size - off; int64(len(p)) > rest {
		p, eof = p[:rest], io.EOF
	}
	end := off + int64(len(p))
	at := off // everything below at is filled in
	first := sort.Search(len(j.parts), func(i int) bool { return j.parts[i].off+j.parts[i].c.Size() > off })
	for _, pt := range j.parts[first:] {
		if pt.off >= end {
			break
		}
		if pt.off > at {
			clear(p[at-off : pt.off-off])
			at = pt.off
		}
		stop := min(end, pt.off+pt.c.Size())
		n, err := pt.c.ReadAt(p[at-off:stop-off], at-pt.off)
		at += int64(n)
		if at < stop {
			if err == nil || err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return int(at - off), err
		}
	}
	clear(p[at-off:])
	return len(p), eof
}
