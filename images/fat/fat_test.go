package fat

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cosi-os/cosi/images/content"
	"github.com/cosi-os/cosi/images/internal/judge"
)

var testOptions = Options{Label: "ESP", VolumeID: 0xc0510001, Time: time.Date(2026, 3, 4, 5, 6, 8, 0, time.UTC), Start: 2 << 20}

// noise returns n bytes that do not compress and are always the same.
func noise(n int) content.Content {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{1}).Read(b)
	return bytes.NewReader(b)
}

func testFiles() []File {
	files := []File{
		{"EFI/BOOT/BOOTX64.EFI", noise(5<<20 + 17)},
		{"user-data.yaml", content.String("metadata:\n")},
		{"empty", content.String("")},
		{"EFI/loader entry with a rather long name.conf", content.String("title COSI\n")},
		{"EFI/loader entry with another long name.conf", content.String("title COSI 2\n")},
		{"loader/straße.txt", content.String("ß")},
		{"loader/exactly13char", content.String("13")},
	}
	for i := range 300 { // a directory of several clusters
		files = append(files, File{fmt.Sprintf("many/a file with a long name %03d.txt", i), content.String(fmt.Sprint(i))})
	}
	return files
}

func newFile(t testing.TB, size int64) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "fat"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	return f
}

func newFS(t testing.TB, size int64, files []File) *os.File {
	t.Helper()
	f := newFile(t, size)
	if err := Write(f, size, files, testOptions); err != nil {
		t.Fatal(err)
	}
	return f
}

func TestFsckHasNothingToSay(t *testing.T) {
	for _, size := range []int64{MinSize, 256 << 20, 8 << 30} {
		f := newFS(t, size, testFiles())
		out := judge.Run(t, "fsck.vfat", "-n", f.Name())
		// It prints its version and a count of files; each complaint would be a line more.
		if strings.Count(strings.TrimSpace(out), "\n") != 1 {
			t.Errorf("size %d: fsck.vfat -n:\n%s", size, out)
		}
	}
}

func TestMtoolsReadEveryFileBack(t *testing.T) {
	f := newFS(t, 256<<20, testFiles())
	t.Setenv("MTOOLS_SKIP_CHECK", "1")
	t.Setenv("LC_ALL", "C.UTF-8")
	dir := t.TempDir()
	judge.Run(t, "mcopy", "-s", "-i", f.Name(), "::/", dir)
	for _, file := range testFiles() {
		if strings.Contains(file.Path, "ß") {
			continue // mtools' own character set conversion is in between
		}
		got, err := os.ReadFile(filepath.Join(dir, file.Path))
		if err != nil {
			t.Error(err)
			continue
		}
		want, _ := io.ReadAll(content.Reader(file.Content))
		if !bytes.Equal(got, want) {
			t.Errorf("%s reads back %d bytes that differ from the %d written", file.Path, len(got), len(want))
		}
	}
	if out := judge.Run(t, "mdir", "-i", f.Name(), "::/EFI/BOOT"); !strings.Contains(out, "BOOTX64  EFI   5242897 2026-03-04   5:06") {
		t.Errorf("mdir:\n%s", out)
	}
}

func TestWriteGivesTheSameBytes(t *testing.T) {
	sum := func(files []File) [32]byte {
		b, err := os.ReadFile(newFS(t, MinSize, files).Name())
		if err != nil {
			t.Fatal(err)
		}
		return sha256.Sum256(b)
	}
	files := testFiles()
	a := sum(files)
	files[0], files[3] = files[3], files[0]
	if a != sum(files) {
		t.Error("the order of the files changes the file system")
	}
}

func TestWriteRefuses(t *testing.T) {
	x := content.String("x")
	for _, tc := range []struct {
		want  string
		size  int64
		files []File
		label string
	}{
		{"too small for FAT32", 16 << 20, nil, ""},
		{"in sectors of 512", MinSize + 1, nil, ""},
		{"files need", MinSize, []File{{"a", noise(40 << 20)}}, ""},
		{"longer than 4 GiB", MinSize, []File{{"a", io.NewSectionReader(nil, 0, 1<<32)}}, ""},
		{`the name "A" is taken`, MinSize, []File{{"A", x}, {"a", x}}, ""},
		{`the name "EFI" is taken`, MinSize, []File{{"EFI/a", x}, {"efi/b", x}}, ""},
		{`the name "a" is taken`, MinSize, []File{{"a", x}, {"a/b", x}}, ""},
		{"not a clean relative path", MinSize, []File{{"/a", x}}, ""},
		{"no content", MinSize, []File{{"a", nil}}, ""},
		{"a character that FAT has not", MinSize, []File{{"a:b", x}}, ""},
		{"a character that FAT has not", MinSize, []File{{"a.", x}}, ""},
		{"a control character", MinSize, []File{{"a\n", x}}, ""},
		{"at most 255", MinSize, []File{{strings.Repeat("a", 256), x}}, ""},
		{`label "esp"`, MinSize, nil, "esp"},
		{`label "TWELVE CHARS"`, MinSize, nil, "TWELVE CHARS"},
	} {
		err := Write(newFile(t, 0), tc.size, tc.files, Options{Label: tc.label})
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("Write(%d, %v) = %v; want an error with %q", tc.size, tc.files, err, tc.want)
		}
	}
}

func TestDosTimeStaysInRange(t *testing.T) {
	for _, tc := range []struct {
		t    time.Time
		want stamp
	}{
		{time.Unix(0, 0), stamp{1<<5 | 1, 0}},
		{time.Date(2026, 3, 4, 5, 6, 9, 0, time.UTC), stamp{46<<9 | 3<<5 | 4, 5<<11 | 6<<5 | 4}},
		{time.Date(2500, 1, 1, 0, 0, 0, 0, time.UTC), stamp{127<<9 | 12<<5 | 31, 23<<11 | 59<<5 | 29}},
	} {
		if got := dosTime(tc.t); got != tc.want {
			t.Errorf("dosTime(%v) = %+v; want %+v", tc.t, got, tc.want)
		}
	}
}

func BenchmarkWrite50MB(b *testing.B) {
	files := []File{{"EFI/BOOT/BOOTX64.EFI", noise(50 << 20)}}
	b.SetBytes(50 << 20)
	for b.Loop() {
		newFS(b, 256<<20, files)
	}
}
