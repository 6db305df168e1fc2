package blklog

import (
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
)

// Piece is something that was written, or a part of it.
type Piece struct{ Offset, Length, at int64 }

// behind returns p without its first n bytes.
func (p Piece) behind(n int64) Piece {
	p.Offset, p.Length = p.Offset+n, p.Length-n
	if p.at != 0 {
		p.at += n
	}
	return p
}

// Flushed returns how many of the first n entries are sure to be durable: those up to the last flush, that included.
func (l *Log) Flushed(n int) int {
	for ; n > 0 && l.Entries[n-1].Flags&Flush == 0; n-- {
	}
	return n
}

// Pieces returns what the entries from one number up to another wrote, in order.
func (l *Log) Pieces(from, to int) (all []Piece) {
	for _, e := range l.Entries[from:to] {
		if e.Length > 0 {
			all = append(all, Piece{e.Offset, e.Length, e.at})
		}
	}
	return all
}

// page is what a disk writes at once. Older disks wrote 512 bytes; ext4 does not survive that in its superblock, whose checksum covers
// 1024.
const (
	page   = 4096
	sector = 512
)

// Survivors returns what a loss of power after the first n entries may have left of those that had not been flushed: what was written with
// FUA, and of every other write all, some pages (before l.Sectored, sectors), or nothing, of a discard all or
// nothing. With a nil random none of those survives.
func (l *Log) Survivors(n int, random *rand.Rand) (some []Piece) {
	for _, e := range l.Entries[l.Flushed(n):n] {
		whole := Piece{e.Offset, e.Length, e.at}
		switch {
		case e.Length == 0:
		case e.Flags&FUA != 0:
			some = append(some, whole)
		case random == nil:
		case whole.at != 0 && random.IntN(4) == 0:
			some = append(some, l.torn(whole, random)...)
		case random.IntN(2) == 0:
			some = append(some, whole)
		}
	}
	return some
}

// torn returns some of the pages, or sectors, of p.
func (l *Log) torn(p Piece, random *rand.Rand) (some []Piece) {
	for p.Length > 0 {
		unit := int64(page)
		if p.Offset < l.Sectored {
			unit = sector
		}
		n := min(p.Length, unit-p.Offset%unit)
		if random.IntN(3) > 0 {
			some = append(some, Piece{p.Offset, n, p.at})
		}
		p = p.behind(n)
	}
	return some
}

// Window is a part of a disk, Size bytes from Start on, that is kept elsewhere, from its beginning on.
type Window struct {
	To          io.WriterAt
	Start, Size int64
}

// Write writes pieces as far as they are in the window.
func (l *Log) Write(w Window, pieces []Piece) error {
	buffer := make([]byte, 1<<20)
	for _, p := range pieces {
		end := min(p.Offset+p.Length, w.Start+w.Size)
		for p = p.behind(max(0, w.Start-p.Offset)); p.Offset < end; p = p.behind(int64(len(buffer))) {
			b := buffer[:min(end-p.Offset, int64(len(buffer)))]
			if p.at == 0 {
				clear(b)
			} else if n, err := l.data.ReadAt(b, p.at); n < len(b) {
				return fmt.Errorf("what was written at %d: %w", p.Offset, err)
			}
			if _, err := w.To.WriteAt(b, p.Offset-w.Start); err != nil {
				return err
			}
		}
	}
	return nil
}

// Flushes returns the numbers of entries, more than from, that end with a flush, in order.
func (l *Log) Flushes(from int) (all []int) {
	for n := len(l.Entries); n > from; n-- {
		if n = l.Flushed(n); n > from {
			all = append(all, n)
		}
	}
	slices.Reverse(all)
	return all
}
