package content

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
)

func TestJoinedReadsAsOneReader(t *testing.T) {
	var j Joined
	j.Append(String("abc"))
	j.Align(8)
	j.Append(String(""))
	j.Append(String("defgh"))
	j.Align(4)
	want := []byte("abc\x00\x00\x00\x00\x00defgh\x00\x00\x00")
	if j.Size() != int64(len(want)) {
		t.Fatalf("Size() = %d; want %d", j.Size(), len(want))
	}
	if err := iotest.TestReader(Reader(&j), want); err != nil {
		t.Fatal(err)
	}
	for off := range want {
		for end := off + 1; end <= len(want); end++ {
			got := bytes.Repeat([]byte{0xff}, end-off)
			if n, err := j.ReadAt(got, int64(off)); n != len(got) || err != nil && err != io.EOF {
				t.Fatalf("ReadAt(%d bytes, %d) = %d, %v", len(got), off, n, err)
			}
			if !bytes.Equal(got, want[off:end]) {
				t.Fatalf("ReadAt(%d bytes, %d) reads %q; want %q", len(got), off, got, want[off:end])
			}
		}
	}
}

// short claims to be longer than it is, as a file does that was cut while it was read.
type short struct{ *strings.Reader }

func (s short) Size() int64 { return s.Reader.Size() + 1 }

func TestShortContentIsAnError(t *testing.T) {
	c := short{strings.NewReader("abc")}
	var j Joined
	j.Append(c)
	if _, err := j.ReadAt(make([]byte, 4), 0); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("ReadAt = %v; want %v", err, io.ErrUnexpectedEOF)
	}
	f, err := os.Create(filepath.Join(t.TempDir(), "f"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := CopyAt(f, 0, c); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("CopyAt = %v; want %v", err, io.ErrUnexpectedEOF)
	}
}

func TestOpenRefusesADirectory(t *testing.T) {
	if _, err := Open(t.TempDir()); err == nil {
		t.Error("Open of a directory succeeded")
	}
}
