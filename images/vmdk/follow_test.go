package vmdk

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"

	"github.com/klauspost/compress/zlib"
)

// follow reads a disk as a stream is read: grain by grain, and past what markers announce.
func follow(file []byte) ([]byte, error) {
	le := binary.LittleEndian
	disk := make([]byte, le.Uint64(file[12:])*sector)
	last := int64(-1)
	for at := int(le.Uint64(file[64:])) * sector; ; {
		value, size, kind := le.Uint64(file[at:]), le.Uint32(file[at+8:]), le.Uint32(file[at+12:])
		switch {
		case size > 0:
			if int64(value) <= last {
				return nil, fmt.Errorf("sector %d comes behind %d", value, last)
			}
			last = int64(value)
			r, err := zlib.NewReader(bytes.NewReader(file[at+12 : at+12+int(size)]))
			if err != nil {
				return nil, err
			}
			if _, err := io.ReadFull(r, disk[value*sector:][:grain]); err != nil {
				return nil, err
			}
			at += (12 + int(size) + sector - 1) / sector * sector
		case kind == markEnd:
			if at += sector; at != len(file) {
				return nil, fmt.Errorf("%d bytes behind the end", len(file)-at)
			}
			return disk, nil
		default:
			at += sector + int(value)*sector
		}
	}
}
