package image

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cosi-os/cosi/images/content"
	"github.com/cosi-os/cosi/tools/cosi-boot/internal/image/imagetest"
)

func TestAnImageHasTheFilesOfItsManifestAndNoOthers(t *testing.T) {
	dir := t.TempDir()
	id := strings.Repeat("ab", 32)
	stem, files := imagetest.Write(t, dir, 100)
	imagetest.Write(t, filepath.Join(dir, "images", id), 100)
	s := &Store{Dir: filepath.Join(dir, "images")}
	for _, reference := range []string{stem, Prefix + id} {
		i, err := s.Open(reference)
		if err != nil {
			t.Fatal(err)
		}
		for suffix, want := range files {
			f, err := i.Open(i.Name + suffix)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := io.ReadAll(content.Reader(f)); err != nil || !bytes.Equal(got, want) {
				t.Errorf("%s of %s: %d bytes, %v; want %d", suffix, reference, len(got), err, len(want))
			}
			f.Close()
		}
		for _, other := range []string{i.Name + ".manifest.json", "../outside", "/etc/passwd", "", ".", i.Name + ".efi/../" + i.Name + ".efi"} {
			if _, err := i.Open(other); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("Open(%q) = %v", other, err)
			}
		}
	}
	for reference, want := range map[string]string{
		filepath.Join(dir, "none"): "outputs: [pxe]", Prefix + strings.Repeat("0", 64): "post its definition", Prefix + "../..": "64 hexadecimal digits", Prefix + id[:62] + "/*": "64 hexadecimal digits",
	} {
		if _, err := s.Open(reference); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Open(%s) = %v; want %q", reference, err, want)
		}
	}
}

// A set for arm64 has another iPXE, and nothing for a BIOS.
func TestASetForARM(t *testing.T) {
	stem, _ := imagetest.WriteARM(t, t.TempDir(), 100)
	if i, err := (&Store{}).Open(stem); err != nil || i.Arch != "arm64" {
		t.Fatalf("Open = %+v, %v", i, err)
	}
	text, err := os.ReadFile(stem + beside)
	if err == nil {
		err = os.WriteFile(stem+beside, bytes.ReplaceAll(text, []byte("ipxe-arm64.efi"), []byte("snponly.efi")), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := (&Store{}).Open(stem); err == nil || !strings.Contains(err.Error(), "has no cosi-tiny-arm64.ipxe-arm64.efi") {
		t.Errorf("Open = %v", err)
	}
}

func TestASetThatIsNotWholeIsRefused(t *testing.T) {
	dir := t.TempDir()
	stem, _ := imagetest.Write(t, dir, 100)
	s := &Store{}
	if _, err := s.Open(stem); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(stem + beside)
	if err != nil {
		t.Fatal(err)
	}
	later := time.Now().Add(time.Minute)
	text = bytes.Replace(text, []byte(imagetest.Name+".snponly.efi"), []byte(imagetest.Name+".other"), 1)
	if err := errors.Join(os.WriteFile(stem+beside, text, 0o600), os.Chtimes(stem+beside, later, later)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Open(stem); err == nil || !strings.Contains(err.Error(), "has no cosi-tiny-amd64.snponly.efi") {
		t.Errorf("Open = %v", err)
	}
}
