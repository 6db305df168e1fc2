package vmdk

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/cosi-os/cosi/images/internal/judge"
)

var spec = Spec{Name: "disk.vmdk", ID: "01234567-89AB-4DEF-8123-456789ABCDEF"}

func convert(t *testing.T, raw *os.File) []byte {
	t.Helper()
	var out bytes.Buffer
	if err := spec.Convert(&out, raw); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestQemuReadsTheSameBytes(t *testing.T) {
	for _, size := range []int64{512, grain, 10<<20 + 512, 32 << 20, 771 << 20, 3 << 30} {
		raw := judge.Disk(t, size)
		file := filepath.Join(t.TempDir(), spec.Name)
		if err := os.WriteFile(file, convert(t, raw), 0o600); err != nil {
			t.Fatal(err)
		}
		judge.Run(t, "qemu-img", "compare", "-f", "raw", "-F", "vmdk", raw.Name(), file)
		judge.Run(t, "qemu-img", "check", "-f", "vmdk", file)
		info := judge.Run(t, "qemu-img", "info", "-f", "vmdk", file)
		for _, want := range []string{"create type: streamOptimized", "cid: 19088743", "compressed: true", "cluster size: 65536"} {
			if !strings.Contains(info, want) {
				t.Errorf("a disk of %d bytes: QEMU says\n%s\nwant %q", size, info, want)
			}
		}
	}
}

// vSphere reads a disk from its first byte to its last, by the markers: what they announce has to be there, in the order of the disk.
func TestMarkersAloneTellTheDisk(t *testing.T) {
	raw := judge.Disk(t, 100<<20)
	want, err := os.ReadFile(raw.Name())
	if err != nil {
		t.Fatal(err)
	}
	file := convert(t, raw)
	if got, err := unpacked(t, file); err != nil || !bytes.Equal(got, want) {
		t.Errorf("who follows the markers gets another disk, %v", err)
	}
	// The first grain, and one out of order: what the first says of its place is changed.
	at := dataStart * sector
	late := bytes.Clone(file)
	late[at+4] = 1
	for name, damaged := range map[string][]byte{
		"header: unexpected EOF": file[:100], "does not begin like one": append([]byte("KDMW"), file[4:]...), "not stream-optimized": zeroed(file, 8, 12),
		"a grain of": late, "zlib: invalid checksum": zeroed(file, at+12+len(grainAt(file, at))-4, at+12+len(grainAt(file, at))), "unexpected EOF": file[:len(file)-2*sector-1],
		"something comes behind the end": append(bytes.Clone(file), 0),
	} {
		if _, err := unpacked(t, damaged); err == nil || !strings.Contains(err.Error(), name) || !strings.HasPrefix(err.Error(), "vmdk: ") {
			t.Errorf("Unpack = %v; want %q", err, name)
		}
	}
}

func unpacked(t *testing.T, file []byte) ([]byte, error) {
	t.Helper()
	disk, err := os.Create(filepath.Join(t.TempDir(), "disk"))
	if err != nil {
		t.Fatal(err)
	}
	defer disk.Close()
	if err := Unpack(disk, bytes.NewReader(file)); err != nil {
		return nil, err
	}
	return os.ReadFile(disk.Name())
}

// grainAt is what a grain's marker at a place announces.
func grainAt(file []byte, at int) []byte {
	return file[at+12:][:binary.LittleEndian.Uint32(file[at+8:])]
}

func zeroed(file []byte, from, to int) []byte {
	other := bytes.Clone(file)
	clear(other[from:to])
	return other
}

func TestAnyNumberOfProcessorsGivesTheSameBytes(t *testing.T) {
	raw := judge.Disk(t, 100<<20)
	before := runtime.GOMAXPROCS(1)
	one := convert(t, raw)
	runtime.GOMAXPROCS(5)
	five := convert(t, raw)
	runtime.GOMAXPROCS(before)
	if !bytes.Equal(one, five) {
		t.Errorf("%d bytes by one processor, %d by five: they differ", len(one), len(five))
	}
}

// full is a disk without room.
type full struct{ left int }

var errFull = errors.New("no space")

func (f *full) Write(b []byte) (int, error) {
	if f.left -= len(b); f.left < 0 {
		return 0, errFull
	}
	return len(b), nil
}

func TestConvertFailsInWords(t *testing.T) {
	raw := judge.Disk(t, 100<<20)
	for _, left := range []int{0, 100 << 10, len(convert(t, raw)) - 1} {
		if err := spec.Convert(&full{left}, raw); !errors.Is(err, errFull) || !strings.HasPrefix(err.Error(), "vmdk: ") {
			t.Errorf("Convert into %d bytes = %v; want %v", left, err, errFull)
		}
	}
	long := Spec{Name: strings.Repeat("x", 1<<16), ID: spec.ID}
	if err := long.Convert(&full{}, raw); err == nil || !strings.Contains(err.Error(), "too long") {
		t.Errorf("Convert with a long name = %v", err)
	}
}
