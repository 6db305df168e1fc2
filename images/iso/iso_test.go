package iso

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cosi-os/cosi/images/content"
	"github.com/cosi-os/cosi/images/fat"
	"github.com/cosi-os/cosi/images/internal/judge"
)

func testSpec() Spec {
	return Spec{
		Label:    "COSI",
		VolumeID: 0xc0510002,
		ESP:      []fat.File{{Path: "EFI/BOOT/BOOTX64.EFI", Content: content.String(strings.Repeat("uki ", 10<<20))}},
		Time:     time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC),
	}
}

func write(t *testing.T, s Spec) string {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "cosi.iso"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := s.Write(f); err != nil {
		t.Fatal(err)
	}
	return f.Name()
}

func TestXorrisoReadsTheVolume(t *testing.T) {
	name := write(t, testSpec())
	out := judge.Run(t, "xorriso", "-abort_on", "WARNING", "-indev", name, "-toc", "-pvd_info", "-report_el_torito", "plain", "-report_system_area", "plain", "-ls", "/")
	for _, want := range []string{"Volume id    : 'COSI'", "Creation Time: 2026030405060700", "1  UEFI  y   none", "El Torito img path :   1  /ESP.IMG", "GPT partition path :   1  /ESP.IMG", "'BOOT.CAT'"} {
		if !strings.Contains(out, want) {
			t.Errorf("xorriso does not say %q:\n%s", want, out)
		}
	}
}

func TestBootImageIsAFileSystem(t *testing.T) {
	name := write(t, testSpec())
	img := filepath.Join(t.TempDir(), "esp.img")
	judge.Run(t, "xorriso", "-osirrox", "on", "-indev", name, "-extract", "/ESP.IMG", img)
	if out := judge.Run(t, "fsck.vfat", "-n", img); strings.Count(strings.TrimSpace(out), "\n") != 1 {
		t.Errorf("fsck.vfat -n has something to say:\n%s", out)
	}
	got := judge.Run(t, "mtype", "-i", img, "::/EFI/BOOT/BOOTX64.EFI")
	if want, _ := io.ReadAll(content.Reader(testSpec().ESP[0].Content)); got != string(want) {
		t.Errorf("the boot image reads back as %d bytes; want %d", len(got), len(want))
	}
}

func TestPartitionTableNamesTheBootImage(t *testing.T) {
	out := judge.Run(t, "sgdisk", "-v", "-p", write(t, testSpec()))
	if !strings.Contains(out, "No problems found") || !strings.Contains(out, "EF00  esp") {
		t.Errorf("sgdisk -v -p:\n%s", out)
	}
}

func TestWriteGivesTheSameBytes(t *testing.T) {
	a, err := os.ReadFile(write(t, testSpec()))
	if err != nil {
		t.Fatal(err)
	}
	s := testSpec()
	s.Time = s.Time.In(time.FixedZone("elsewhere", 3600))
	b, err := os.ReadFile(write(t, s))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(a, b) {
		t.Error("two media of one Spec differ")
	}
}

func TestLabels(t *testing.T) {
	for label, ok := range map[string]bool{"COSI_1": true, "": false, "cosi": false, strings.Repeat("A", 33): false} {
		if err := checkLabel(label); (err == nil) != ok {
			t.Errorf("checkLabel(%q) = %v", label, err)
		}
	}
}
