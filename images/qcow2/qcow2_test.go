package qcow2

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/cosi-os/cosi/images/internal/judge"
)

func convert(t testing.TB, raw *os.File) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "disk.qcow2"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if err := Convert(f, raw); err != nil {
		t.Fatal(err)
	}
	return f
}

func TestQemuReadsTheSameBytes(t *testing.T) {
	for _, size := range []int64{512, 64 << 10, 10<<20 + 512, 771 << 20, 3 << 30} {
		raw := judge.Disk(t, size)
		q := convert(t, raw)
		if out := judge.Run(t, "qemu-img", "check", q.Name()); !strings.Contains(out, "No errors were found") {
			t.Errorf("size %d: qemu-img check:\n%s", size, out)
		}
		judge.Run(t, "qemu-img", "compare", "-f", "raw", "-F", "qcow2", raw.Name(), q.Name())
		if size > 64<<20 {
			continue
		}
		back := filepath.Join(t.TempDir(), "back.raw")
		judge.Run(t, "qemu-img", "convert", "-O", "raw", q.Name(), back)
		want, _ := os.ReadFile(raw.Name())
		got, err := os.ReadFile(back)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("size %d: the image converted back differs (%v)", size, err)
		}
	}
}

func TestZerosAndHolesTakeNoSpace(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "zero.raw"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Write(make([]byte, 8<<20)); err != nil { // zeros that are no hole
		t.Fatal(err)
	}
	if err := f.Truncate(1 << 30); err != nil {
		t.Fatal(err)
	}
	st, err := convert(t, f).Stat()
	if err != nil {
		t.Fatal(err)
	}
	if want := int64(4 * cluster); st.Size() != want { // header, L1, refcount block and table
		t.Errorf("an image of zeros has %d bytes; want %d", st.Size(), want)
	}
}

func TestProcessorsDoNotChangeTheBytes(t *testing.T) {
	raw := judge.Disk(t, 64<<20)
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	one, err := os.ReadFile(convert(t, raw).Name())
	if err != nil {
		t.Fatal(err)
	}
	runtime.GOMAXPROCS(7)
	seven, err := os.ReadFile(convert(t, raw).Name())
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(one, seven) {
		t.Error("1 and 7 processors make different images")
	}
}

// An error anywhere ends the conversion, and no goroutine is left waiting.
func TestErrorsEndTheConversion(t *testing.T) {
	raw := judge.Disk(t, 64<<20)
	stop := errors.New("no space")
	n := 0
	err := compressAll(raw, 64<<20, func(packed) error {
		if n++; n == 3 {
			return stop
		}
		return nil
	})
	if !errors.Is(err, stop) {
		t.Errorf("compressAll = %v; want %v", err, stop)
	}
	readOnly, err := os.Open(raw.Name())
	if err != nil {
		t.Fatal(err)
	}
	defer readOnly.Close()
	if err := Convert(readOnly, raw); err == nil {
		t.Error("Convert into a file that is open for reading succeeded")
	}
}

func BenchmarkConvert(b *testing.B) {
	path := os.Getenv("COSI_BENCH_RAW")
	var raw *os.File
	if path == "" {
		raw = judge.Disk(b, 771<<20)
	} else {
		f, err := os.Open(path)
		if err != nil {
			b.Fatal(err)
		}
		defer f.Close()
		raw = f
	}
	for b.Loop() {
		convert(b, raw)
	}
}
