package inspect

import (
	"archive/tar"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestWhatIsNoImageIsRefusedInWords(t *testing.T) {
	dir := t.TempDir()
	for content, want := range map[string]string{
		"":                                   "is no image of a COSI node",
		"a":                                  "is no image of a COSI node",
		strings.Repeat("\x00", 1<<20):        "is no image of a COSI node",
		"MZ" + strings.Repeat("\x00", 1<<12): "is no image of a COSI node",
		"QFI\xfb" + strings.Repeat("x", 512): "qcow2: version 2021161080; want 3",
		"070701" + strings.Repeat("0", 512):  "initramfs",
		"KDMV" + strings.Repeat("x", 1<<17):  "vmdk: it is not stream-optimized",
		"\x1f\x8b":                           "unexpected EOF",
		"\x1f\x8b" + strings.Repeat("x", 64): "gzip: invalid header",
		"\x28\xb5\x2f\xfdxxxxxx":             "raw.zst: reserved bit set on frame header",
		"\xfd7zXZ\x00":                       "unexpected EOF",
		archive(t, "disk.txt", "a"):          "is no image of a COSI node",
		archive(t, "oci-layout", "{}"):       "index.json: is no image of a COSI node",
		archive(t, "manifest.json", "{}"):    "upgrade: manifest.json: format 0: want 1",
		archive(t, "a.vmdk", "a"):            "vmdk: header: unexpected EOF",
	} {
		file := filepath.Join(dir, "image")
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Kinds(file); err == nil || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), file+": ") {
			t.Errorf("%.8q: %v; want %q", content, err, want)
		}
	}
	if _, err := Kinds(filepath.Join(dir, "none")); !os.IsNotExist(err) {
		t.Errorf("no file: %v", err)
	}
}

// archive is a tar archive with one file.
func archive(t *testing.T, name, content string) string {
	t.Helper()
	out := &strings.Builder{}
	w := tar.NewWriter(out)
	if err := w.WriteHeader(&tar.Header{Name: name, Size: int64(len(content)), Format: tar.FormatUSTAR}); err != nil {
		t.Fatal(err)
	}
	w.Write([]byte(content))
	w.Close()
	return out.String()
}

// FuzzRootOf: any bytes are an image or an error.
func FuzzRootOf(f *testing.F) {
	for _, seed := range []string{"MZ", "070701", "QFI\xfb", "EFI PART", "KDMV", "\x1f\x8b\x08", "\x28\xb5\x2f\xfd", "\xfd7zXZ\x00"} {
		f.Add([]byte(seed + strings.Repeat("\x00", 1024)))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		file := filepath.Join(t.TempDir(), "image")
		if err := os.WriteFile(file, data, 0o600); err != nil {
			t.Fatal(err)
		}
		if i, err := Open(file); err == nil {
			i.Report() // an error or a report
			i.Close()
		}
		if set, err := Kinds(file); err == nil && len(set.All()) == 0 {
			t.Error("an image without kinds")
		}
	})
}
