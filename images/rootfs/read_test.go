package rootfs

import (
	"bytes"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/cosi-os/cosi/images/content"
	"github.com/cosi-os/cosi/images/internal/judge"
)

// sample is so many bytes that can be compressed in part: words from a small dictionary, and here and there noise.
func sample(random *rand.Rand, size int, noise float64) string {
	var b strings.Builder
	for b.Len() < size {
		if random.Float64() < noise {
			for range 300 {
				b.WriteByte(byte(random.Uint32()))
			}
			continue
		}
		fmt.Fprintf(&b, "word%d ", random.IntN(1000))
	}
	return b.String()[:size]
}

// awkward are files of all sizes at which something changes, and a directory of several blocks.
func awkward() []Entry {
	random := rand.New(rand.NewPCG(1, 2))
	entries := []Entry{
		{Path: "long", Mode: fs.ModeSymlink | 0o777, Target: strings.Repeat("d/", 1500) + "f"},
		{Path: "-before-the-dot", Mode: 0o644, Content: content.String("x")},
	}
	for i := range 400 {
		entries = append(entries, Entry{Path: fmt.Sprintf("many/%s-%d", strings.Repeat("n", i%50), i), Mode: 0o400, Content: content.String(fmt.Sprint(i))})
	}
	for _, noise := range []float64{0, 0.1, 0.3, 1} {
		for _, around := range []int{0, inlineMost, blockSize, 2 * blockSize, 3 * blockSize, extentSize, extentSize + blockSize, 2*extentSize + 2*blockSize, 5*extentSize + 777} {
			for _, size := range []int{around - 1, around, around + 1} {
				if size >= 0 {
					entries = append(entries, Entry{Path: fmt.Sprintf("sizes/%v-%d", noise, size), Mode: 0o644, Content: content.String(sample(random, size, noise))})
				}
			}
		}
	}
	return entries
}

// What is written is what we read, and what the tools of the file system's authors read.
func TestEverySizeReadsBack(t *testing.T) {
	entries := awkward()
	name := written(t, entries)
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	root, err := Open(f)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "extracted")
	judge.Run(t, "fsck.erofs", "--extract="+dir, name)
	var paths []string
	for _, e := range entries {
		paths = append(paths, e.Path)
		if e.Mode.Type() == fs.ModeSymlink {
			target, err := os.Readlink(filepath.Join(dir, e.Path))
			if ours, ourErr := fs.ReadLink(root, e.Path); err != nil || ourErr != nil || target != e.Target || ours != e.Target {
				t.Errorf("%s: fsck reads %q, %v; we read %q, %v", e.Path, target, err, ours, ourErr)
			}
			continue
		}
		want := make([]byte, e.Content.Size())
		e.Content.ReadAt(want, 0)
		if got, err := os.ReadFile(filepath.Join(dir, e.Path)); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: fsck reads %d bytes, %v; want %d", e.Path, len(got), err, len(want))
		}
		if got, err := fs.ReadFile(root, e.Path); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: we read %d bytes, %v; want %d", e.Path, len(got), err, len(want))
		}
	}
	if err := fstest.TestFS(withoutLinks{root}, paths[1:]...); err != nil {
		t.Error(err)
	}
}

// withoutLinks hides the symbolic links: TestFS would follow them.
type withoutLinks struct{ fs.FS }

func (w withoutLinks) ReadDir(name string) ([]fs.DirEntry, error) {
	all, err := fs.ReadDir(w.FS, name)
	var kept []fs.DirEntry
	for _, e := range all {
		if e.Type() != fs.ModeSymlink {
			kept = append(kept, e)
		}
	}
	return kept, err
}

func (w withoutLinks) Open(name string) (fs.File, error) {
	f, err := w.FS.Open(name)
	if d, ok := f.(*directory); ok {
		d.rest, _ = w.ReadDir(name)
	}
	return f, err
}

// A file takes no more blocks than it has data, and one that can be compressed takes fewer.
func TestCompression(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	size := func(text string) int64 {
		info, err := os.Stat(written(t, []Entry{{Path: "f", Mode: 0o644, Content: content.String(text)}}))
		if err != nil {
			t.Fatal(err)
		}
		return info.Size()
	}
	const length = 1 << 20
	if noise := size(sample(random, length, 1)); noise > length+2*blockSize {
		t.Errorf("noise takes %d bytes of %d", noise, length)
	}
	if words := size(sample(random, length, 0)); words > length/2 {
		t.Errorf("words take %d bytes of %d", words, length)
	}
}

func FuzzOpen(f *testing.F) {
	image, err := os.ReadFile(written(f, testEntries()))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(image[superOffset:])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		root, err := Open(bytes.NewReader(append(make([]byte, superOffset), data...)))
		if err != nil {
			return
		}
		left := 4 << 20
		fs.WalkDir(root, ".", func(name string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			if left -= len(name); left < 0 {
				return fs.SkipAll
			}
			info, err := d.Info()
			if err != nil || info.Size() > 1<<20 { // a small image may have many large files
				return err
			}
			data, err := fs.ReadFile(root, name)
			if err == nil && int64(len(data)) != info.Size() {
				t.Errorf("%s: %d bytes; its inode says %d", name, len(data), info.Size())
			}
			left -= len(data)
			return nil
		})
	})
}
