package qcow2

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cosi-os/cosi/images/internal/judge"
)

// openFile opens a qcow2 file by its path.
func openFile(t *testing.T, path string) (*Disk, error) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	return Open(f, info.Size())
}

func TestWhatIsWrittenIsRead(t *testing.T) {
	for _, size := range []int64{512, cluster, 10<<20 + 512, 33 << 20} {
		raw := judge.Disk(t, size)
		want, err := os.ReadFile(raw.Name())
		if err != nil {
			t.Fatal(err)
		}
		d, err := openFile(t, convert(t, raw).Name())
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(io.NewSectionReader(d, 0, 1<<40))
		if err != nil || d.Size() != size || !bytes.Equal(got, want) {
			t.Errorf("size %d: %d bytes of a disk of %d are read (%v), and they are the same: %v", size, len(got), d.Size(), err, bytes.Equal(got, want))
		}
		few := make([]byte, 7)
		for _, at := range []int64{0, size/2 - 3, size - 7} {
			if n, err := d.ReadAt(few, at); n != 7 || err != nil || !bytes.Equal(few, want[at:at+7]) {
				t.Errorf("size %d: at %d: %d, %v, %q", size, at, n, err, few)
			}
		}
		if n, err := d.ReadAt(few, size-3); n != 3 || err != io.EOF {
			t.Errorf("size %d: over the end: %d, %v", size, n, err)
		}
	}
}

// TestWhatQemuWritesIsRead: also what it does not compress, and its zeros that are no hole.
func TestWhatQemuWritesIsRead(t *testing.T) {
	raw := judge.Disk(t, 9<<20)
	want, err := os.ReadFile(raw.Name())
	if err != nil {
		t.Fatal(err)
	}
	for _, flags := range [][]string{{}, {"-c"}, {"-S", "0"}} {
		file := filepath.Join(t.TempDir(), "disk.qcow2")
		judge.Run(t, "qemu-img", append(append([]string{"convert", "-O", "qcow2"}, flags...), raw.Name(), file)...)
		d, err := openFile(t, file)
		if err != nil {
			t.Errorf("%q: %v", flags, err)
			continue
		}
		if got, err := io.ReadAll(io.NewSectionReader(d, 0, d.Size())); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%q: %d bytes are read (%v); they are the same: %v", flags, len(got), err, bytes.Equal(got, want))
		}
	}
}

func TestWhatQemuCanAndOpenCannotIsRefusedInWords(t *testing.T) {
	base := convert(t, judge.Disk(t, 1<<20)).Name()
	for want, args := range map[string][]string{
		"version 2; want 3":         {"-o", "compat=0.10"},
		"clusters of 1<<12 bytes":   {"-o", "cluster_size=4096"},
		"it is based on another":    {"-b", base, "-F", "qcow2"},
		"it has extended L2":        {"-o", "extended_l2=on"},
		"it is not compressed with": {"-o", "compression_type=zstd"},
		"its data is in another fi": {"-o", "data_file=" + filepath.Join(t.TempDir(), "data")},
	} {
		file := filepath.Join(t.TempDir(), "disk.qcow2")
		judge.Run(t, "qemu-img", append(append([]string{"create", "-f", "qcow2"}, args...), file, "1M")...)
		if _, err := openFile(t, file); err == nil || !strings.Contains(err.Error(), "qcow2: "+want) {
			t.Errorf("%q: %v; want %q", args, err, want)
		}
	}
}

// TestWhatIsBrokenIsAnError: at the place where it is broken.
func TestWhatIsBrokenIsAnError(t *testing.T) {
	whole, err := os.ReadFile(convert(t, judge.Disk(t, 4<<20)).Name())
	if err != nil {
		t.Fatal(err)
	}
	be := binary.BigEndian
	l1 := be.Uint64(whole[40:])
	l2 := be.Uint64(whole[l1:]) & offsetMask
	for _, c := range []struct {
		want   string
		change func([]byte) []byte
	}{
		{"", func(b []byte) []byte { return b }},
		{"header: EOF", func(b []byte) []byte { return b[:50] }},
		{"does not begin like one", func(b []byte) []byte { b[0] = 'q'; return b }},
		{"a disk of ", func(b []byte) []byte { b[24] = 0xff; return b }},
		{"its L1 table has 1 entries", func(b []byte) []byte { be.PutUint64(b[24:], 1<<30); return b }},
		{"its L1 table lies outside", func(b []byte) []byte { be.PutUint64(b[40:], 1<<40); return b }},
		{"it is encrypted", func(b []byte) []byte { b[35] = 1; return b }},
		{"it has snapshots", func(b []byte) []byte { b[63] = 1; return b }},
		{"it was not closed in order", func(b []byte) []byte { b[79] = 1; return b }},
		{"features that are not known", func(b []byte) []byte { b[72] = 1; return b }},
		{"cluster 0: it lies outside", func(b []byte) []byte { be.PutUint64(b[l2:], 1<<40); return b }},
		{"cluster 0: it lies outside", func(b []byte) []byte { be.PutUint64(b[l2:], flagCompressed|1<<40); return b }},
		{"cluster 0: deflate: ", func(b []byte) []byte { clear(b[cluster : cluster+20]); return b }},
		{"cluster 0: it lies outside", func(b []byte) []byte { be.PutUint64(b[l1:], 1<<41); return b }},
	} {
		broken := c.change(bytes.Clone(whole))
		d, err := Open(bytes.NewReader(broken), int64(len(broken)))
		if err == nil {
			_, err = d.ReadAt(make([]byte, cluster), 0)
		}
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.HasPrefix(err.Error(), "qcow2: ") || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%v; want %q", err, c.want)
		}
	}
}

// FuzzDisk: any bytes are a disk, of which every part is read or an error, or no disk.
func FuzzDisk(f *testing.F) {
	for _, compressed := range []bool{true, false} {
		f.Add(tiny(f, compressed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		d, err := Open(bytes.NewReader(data), int64(len(data)))
		if err != nil {
			return
		}
		p := make([]byte, cluster+512)
		for _, at := range []int64{0, d.Size() / 2, d.Size()} {
			if n, err := d.ReadAt(p, at); n < len(p) && err == nil {
				t.Errorf("at %d: %d bytes without an error", at, n)
			}
		}
	})
}

// tiny is a disk of two clusters, the second one of zeros, in a file that a fuzzer gets to the end of: the tables do not fill clusters.
func tiny(f *testing.F, compressed bool) []byte {
	image := &image{size: 2 * cluster}
	data := make([]byte, 1024)
	copy(data, image.header(1, 112, 1, 0))
	be := binary.BigEndian
	be.PutUint64(data[112:], flagCopied|512)
	entry := uint64(flagCopied)
	if compressed {
		entry = flagCompressed | 1<<compressedShift | 1024
		var out bytes.Buffer
		w, err := flate.NewWriter(&out, flate.BestCompression)
		if err != nil {
			f.Fatal(err)
		}
		w.Write(bytes.Repeat([]byte("text"), cluster/4))
		w.Close()
		data = append(data, out.Bytes()...)
	}
	be.PutUint64(data[512:], entry)
	be.PutUint64(data[520:], flagZeros)
	d, err := Open(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		f.Fatal(err)
	}
	if _, err := d.ReadAt(make([]byte, 2*cluster), 0); err != nil {
		f.Fatal(err)
	}
	return data
}
