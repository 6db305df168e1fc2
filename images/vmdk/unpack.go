package vmdk

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/klauspost/compress/zlib"
)

// maxCapacity is what the format has room for, in sectors: 2 TiB.
const maxCapacity = 1 << 32

// Unpack writes the disk in a VMDK of Convert's kind into dst, which is empty, as vSphere does: it reads from the first byte to the last and
// believes the markers. It fails unless the grains come in the disk's order, and nothing comes behind the end.
func Unpack(dst *os.File, r io.Reader) error {
	if err := unpack(dst, bufio.NewReaderSize(r, 1<<20)); err != nil {
		return fmt.Errorf("vmdk: %w", err)
	}
	return nil
}

func unpack(dst *os.File, in *bufio.Reader) error {
	head := make([]byte, dataStart*sector)
	if _, err := io.ReadFull(in, head); err != nil {
		return fmt.Errorf("header: %w", err)
	}
	le := binary.LittleEndian
	capacity := le.Uint64(head[12:])
	switch {
	case string(head[:4]) != "KDMV":
		return errors.New("it does not begin like one")
	case le.Uint32(head[8:]) != flags || le.Uint64(head[20:]) != grainSectors || le.Uint64(head[64:]) != dataStart || le.Uint16(head[77:]) != 1:
		return errors.New("it is not stream-optimized, with grains of 64 KiB")
	case capacity > maxCapacity:
		return fmt.Errorf("a disk of %d sectors", capacity)
	}
	if err := dst.Truncate(int64(capacity) * sector); err != nil {
		return err
	}
	next := uint64(0) // the first sector that has not been met
	first := make([]byte, sector)
	for {
		if _, err := io.ReadFull(in, first); err != nil {
			return fmt.Errorf("a marker: %w", err)
		}
		value, size, kind := le.Uint64(first), le.Uint32(first[8:]), le.Uint32(first[12:])
		switch {
		case size > 0 && (value < next || capacity < grainSectors || value > capacity-grainSectors || size > 2*grain):
			return fmt.Errorf("a grain of %d bytes for sector %d does not come behind sector %d of %d", size, value, next, capacity)
		case size > 0:
			packed := append(first[12:len(first):len(first)], make([]byte, (12+int(size)+sector-1)/sector*sector-sector)...)
			if _, err := io.ReadFull(in, packed[sector-12:]); err != nil {
				return fmt.Errorf("sector %d: %w", value, err)
			}
			if err := inflate(dst, int64(value)*sector, packed[:size]); err != nil {
				return fmt.Errorf("sector %d: %w", value, err)
			}
			next = value + grainSectors
		case kind == markEnd:
			if _, err := in.ReadByte(); err != io.EOF {
				return errors.New("something comes behind the end")
			}
			return nil
		case value > maxCapacity:
			return fmt.Errorf("a marker announces %d sectors", value)
		default:
			if _, err := io.CopyN(io.Discard, in, int64(value)*sector); err != nil {
				return fmt.Errorf("what a marker announces: %w", err)
			}
		}
	}
}

// inflate unpacks a grain to its place.
func inflate(dst io.WriterAt, at int64, packed []byte) error {
	z, err := zlib.NewReader(bytes.NewReader(packed))
	if err != nil {
		return err
	}
	plain, err := io.ReadAll(io.LimitReader(z, grain+1))
	if err != nil {
		return err
	}
	if len(plain) != grain {
		return fmt.Errorf("%d bytes; want %d", len(plain), grain)
	}
	_, err = dst.WriteAt(plain, at)
	return err
}
