package kills

import (
	"bytes"
	"encoding/binary"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/cosi-os/cosi/hack/blklog"
)

// fakeLog is the log of a disk without a VM.
type fakeLog struct {
	file    *os.File
	entries uint64
}

func newFakeLog(t *testing.T) fakeLog {
	t.Helper()
	file, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() })
	return fakeLog{file: file}
}

// append appends an entry as QEMU does.
func (f *fakeLog) append(t *testing.T, flags blklog.Flags, offset int64, data []byte) {
	t.Helper()
	const sector = 512
	header, entry := make([]byte, sector), make([]byte, sector)
	f.entries++
	for i, n := range []uint64{0x6a736677736872, 1, f.entries, sector} {
		binary.LittleEndian.PutUint64(header[8*i:], n)
	}
	binary.LittleEndian.PutUint64(entry, uint64(offset/sector))
	binary.LittleEndian.PutUint64(entry[8:], uint64(len(data)/sector))
	binary.LittleEndian.PutUint64(entry[16:], uint64(flags))
	end, err := f.file.Seek(0, io.SeekEnd)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.file.WriteAt(bytes.Join([][]byte{entry, data}, nil), max(end, sector)); err != nil {
		t.Fatal(err)
	}
	if _, err := f.file.WriteAt(header, 0); err != nil {
		t.Fatal(err)
	}
}
