package vhd

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cosi-os/cosi/images/internal/judge"
)

var spec = Spec{ID: "01234567-89AB-4DEF-8123-456789ABCDEF", Time: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}

func convert(t *testing.T, raw *os.File) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "disk.vhd"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if err := spec.Convert(f, raw); err != nil {
		t.Fatal(err)
	}
	return f
}

// QEMU checks the footer's sum and compares every byte; sizes are those before and behind each step of the geometry.
func TestQemuReadsTheSameDisk(t *testing.T) {
	for _, size := range []int64{1 << 20, 10<<20 + 512, 771 << 20, 3 << 30, 130 << 30} {
		raw := judge.Disk(t, size)
		f := convert(t, raw)
		judge.Run(t, "qemu-img", "compare", "-f", "raw", "-F", "vpc", raw.Name(), f.Name())
		info := struct {
			Size int64 `json:"virtual-size"`
		}{}
		if err := json.Unmarshal([]byte(judge.Run(t, "qemu-img", "info", "-f", "vpc", "--output=json", f.Name())), &info); err != nil {
			t.Fatal(err)
		}
		if want := (size + unit - 1) / unit * unit; info.Size != want {
			t.Errorf("a disk of %d bytes is one of %d for QEMU; want %d", size, info.Size, want)
		}
		if st, err := f.Stat(); err != nil || st.Size() != info.Size+footerSize || st.Sys().(*syscall.Stat_t).Blocks*512 > 8<<20 {
			t.Errorf("a disk of %d bytes made %+v, %v; want a sparse file", size, st, err)
		}
	}
}

// TestFooter compares it with QEMU's for the same disk: only who made it, when, the identifier, and the geometry differ. That QEMU sets to the largest.
func TestFooter(t *testing.T) {
	for _, size := range []int64{1 << 20, 40 << 20, 771 << 20, 40 << 30, 130 << 30} {
		other := filepath.Join(t.TempDir(), "other.vhd")
		raw := judge.Disk(t, size)
		judge.Run(t, "qemu-img", "convert", "-f", "raw", "-O", "vpc", "-o", "subformat=fixed,force_size=on", raw.Name(), other)
		want := tail(t, other)
		got := tail(t, convert(t, raw).Name())
		for _, skip := range [][2]int{{24, 40}, {56, 60}, {64, 84}} { // time and creator, geometry, checksum and identifier
			clear(want[skip[0]:skip[1]])
			clear(got[skip[0]:skip[1]])
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%d bytes: footer\n%x\nwant QEMU's\n%x", size, got, want)
		}
	}
}

// TestGeometry compares it with QEMU's for disks that QEMU makes as large as a geometry.
func TestGeometry(t *testing.T) {
	for _, size := range []string{"1M", "40M", "300M", "503M", "504M", "771M", "40G", "126G", "128G"} {
		other := filepath.Join(t.TempDir(), "other.vhd")
		judge.Run(t, "qemu-img", "create", "-f", "vpc", "-o", "subformat=fixed", other, size)
		footer := tail(t, other)
		cylinders, heads, sectors := geometry(int64(binary.BigEndian.Uint64(footer[48:])) / sector)
		want := [3]int64{int64(binary.BigEndian.Uint16(footer[56:])), int64(footer[58]), int64(footer[59])}
		if got := [3]int64{cylinders, heads, sectors}; got != want {
			t.Errorf("geometry of %s = %v; want QEMU's %v", size, got, want)
		}
	}
}

func tail(t *testing.T, file string) []byte {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Seek(-footerSize, io.SeekEnd); err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestConvertFailsInWords(t *testing.T) {
	for want, s := range map[string]Spec{
		`vhd: "x" is not a GUID`: {ID: "x", Time: spec.Time},
		"vhd: 1999-12-31T23:59:59Z is not a time that a VHD can have": {ID: spec.ID, Time: epoch.Add(-time.Second)},
	} {
		if err := s.Convert(nil, judge.Disk(t, unit)); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("Convert = %v; want %s", err, want)
		}
	}
}
