package gcp

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cosi-os/cosi/images/internal/judge"
)

var modified = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func archive(t *testing.T, raw *os.File) []byte {
	t.Helper()
	var out bytes.Buffer
	if err := Convert(&out, raw, modified); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// Disks of few extents, of none, of more than the header has room for, and of more bytes than octal digits tell.
func TestTarUnpacksTheSameDisk(t *testing.T) {
	many := judge.Disk(t, 771<<20)
	for i := range int64(60) {
		if _, err := many.WriteAt([]byte("x"), 100<<20+i<<20); err != nil {
			t.Fatal(err)
		}
	}
	empty := judge.Disk(t, 1<<30)
	if err := errors.Join(empty.Truncate(0), empty.Truncate(1<<30)); err != nil {
		t.Fatal(err)
	}
	for name, raw := range map[string]*os.File{"few": judge.Disk(t, 771<<20), "none": empty, "many": many, "large": judge.Disk(t, 10<<30+512)} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			file := filepath.Join(dir, "image.tar.gz")
			if err := os.WriteFile(file, archive(t, raw), 0o600); err != nil {
				t.Fatal(err)
			}
			if list := judge.Run(t, "tar", "-tzf", file); list != "disk.raw\n" {
				t.Fatalf("tar lists %q", list)
			}
			judge.Run(t, "tar", "-xSzf", file, "-C", dir)
			judge.Run(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", raw.Name(), filepath.Join(dir, "disk.raw"))
			st, err := os.Stat(filepath.Join(dir, "disk.raw"))
			if err != nil || st.Size()%unit != 0 || st.Size() == 0 || !st.ModTime().Equal(modified) || st.Sys().(*syscall.Stat_t).Blocks*512 > 16<<20 {
				t.Errorf("disk.raw is %+v, %v; want whole GiB, sparse", st, err)
			}
		})
	}
}

// Another reader of the format than GNU tar, and what it says of the file.
func TestGoReadsIt(t *testing.T) {
	z, err := gzip.NewReader(bytes.NewReader(archive(t, judge.Disk(t, 100<<20))))
	if err != nil {
		t.Fatal(err)
	}
	z.Multistream(false)
	whole, err := io.ReadAll(z)
	if err != nil || len(whole)%record != 0 {
		t.Fatalf("%d bytes, %v; want whole records in one stream", len(whole), err)
	}
	r := tar.NewReader(bytes.NewReader(whole))
	h, err := r.Next()
	if err != nil || h.Name != fileName || h.Typeflag != tar.TypeGNUSparse || h.Size != unit || h.Format != tar.FormatGNU || h.Mode != 0o644 {
		t.Fatalf("header %+v, %v", h, err)
	}
	if n, err := io.Copy(io.Discard, r); n != unit || err != nil {
		t.Errorf("%d bytes, %v", n, err)
	}
	if _, err := r.Next(); err != io.EOF {
		t.Errorf("behind the file: %v", err)
	}
}

func TestConvertFailsInWords(t *testing.T) {
	raw := judge.Disk(t, 1<<20)
	raw.Close()
	if err := Convert(io.Discard, raw, modified); !errors.Is(err, os.ErrClosed) || !strings.HasPrefix(err.Error(), "gcp: ") {
		t.Errorf("Convert = %v; want %v", err, os.ErrClosed)
	}
}
