package pack

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/cosi-os/cosi/images/content"
	"github.com/cosi-os/cosi/images/internal/judge"
)

// unpackers are what people unpack each format with.
var unpackers = map[Format]string{Zstandard: "zstd", Gzip: "gzip", XZ: "xz"}

// image is text, noise (a piece of it whole), zeros over several pieces, and a last piece that is not whole.
func image() []byte {
	b := make([]byte, 4*piece+12345)
	copy(b, strings.Repeat("the quick brown fox ", 20000))
	rand.NewChaCha8([32]byte{1}).Read(b[piece-100000 : 2*piece])
	b[len(b)-1] = 1
	return b
}

func write(t *testing.T, f Format, c content.Content) []byte {
	t.Helper()
	var out bytes.Buffer
	if err := f.Write(&out, c); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestPeopleUnpackTheSameBytes(t *testing.T) {
	for f, program := range unpackers {
		t.Run(string(f), func(t *testing.T) {
			for _, want := range [][]byte{image(), image()[:100], image()[piece-70000 : piece-1]} {
				file := filepath.Join(t.TempDir(), "image."+string(f))
				packed := write(t, f, bytes.NewReader(want))
				if noise := piece; len(packed) > noise+len(want)/20 && len(want) > piece {
					t.Errorf("%d bytes became %d", len(want), len(packed))
				}
				if err := os.WriteFile(file, packed, 0o600); err != nil {
					t.Fatal(err)
				}
				if got := judge.Run(t, program, "-d", "-c", "-q", file); got != string(want) {
					t.Errorf("%s unpacks %d bytes, other ones than the %d of the image", program, len(got), len(want))
				}
			}
		})
	}
}

func TestAnyNumberOfProcessorsGivesTheSameBytes(t *testing.T) {
	for f := range unpackers {
		before := runtime.GOMAXPROCS(1)
		one := write(t, f, bytes.NewReader(image()))
		runtime.GOMAXPROCS(5)
		five := write(t, f, bytes.NewReader(image()))
		runtime.GOMAXPROCS(before)
		if !bytes.Equal(one, five) {
			t.Errorf("%s: %d bytes by one processor, %d by five: they differ", f, len(one), len(five))
		}
	}
}

// torn is an image that cannot be read to its end.
type torn struct{ content.Content }

func (torn) ReadAt([]byte, int64) (int, error) { return 0, io.ErrUnexpectedEOF }

func TestWriteFailsInWords(t *testing.T) {
	if err := XZ.Write(io.Discard, torn{bytes.NewReader(image())}); !errors.Is(err, io.ErrUnexpectedEOF) || err.Error() != "xz: unexpected EOF" {
		t.Errorf("of an image that cannot be read: %v", err)
	}
	if err := Format("rar").Write(io.Discard, bytes.NewReader(image())); err == nil || err.Error() != "rar: unknown format" {
		t.Errorf("in a format that there is not: %v", err)
	}
}
