package judge

import (
	"bytes"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
)

// Disk returns a sparse image with text, noise, written zeros and holes of every alignment.
func Disk(t testing.TB, size int64) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "disk.raw"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	noise := make([]byte, 300<<10)
	rand.NewChaCha8([32]byte{2}).Read(noise)
	text := bytes.Repeat([]byte("the quick brown fox "), 20000)
	for off, b := range map[int64][]byte{
		0: []byte("boot"), 1<<20 + 4096: text, 3<<20 - 512: noise, 5 << 20: make([]byte, 1<<20),
		size / 2: text, size - 4: []byte("last"),
	} {
		if off < 0 || off+int64(len(b)) > size {
			continue
		}
		if _, err := f.WriteAt(b, off); err != nil {
			t.Fatal(err)
		}
	}
	return f
}
