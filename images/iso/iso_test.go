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
	"github.com/cosi-os/cosi/images/grub"
	"github.com/cosi-os/cosi/images/grub/grubtest"
	"github.com/cosi-os/cosi/images/internal/judge"
)

func testSpec(t *testing.T) Spec {
	t.Helper()
	dir := t.TempDir()
	grubtest.Write(t, dir)
	loader, err := grub.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return Spec{
		Loader:   loader,
		Label:    "COSI",
		VolumeID: 0xc0510002,
		ESP:      []fat.File{{Path: "EFI/BOOT/BOOTX64.EFI", Content: content.String(strings.Repeat("uki ", 10<<20))}},
		Time:     time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC),
		Upgrade: func(f *os.File) (content.Content, error) { // which finds the ESP written
			at := make([]byte, 8)
			_, err := f.ReadAt(at, espStart+82)
			return content.String(string(at) + strings.Repeat("upgrade", 300_000)), err
		},
	}
}

// The file of an upgrade is one of the volume, behind the ESP.
func TestTheUpgradeIsAFile(t *testing.T) {
	name := write(t, testSpec(t))
	file := filepath.Join(t.TempDir(), "upgrade")
	judge.Run(t, "xorriso", "-osirrox", "on", "-indev", name, "-extract", "/UPGRADE.DAT", file)
	if got, err := os.ReadFile(file); err != nil || string(got) != "FAT32   "+strings.Repeat("upgrade", 300_000) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	s := testSpec(t)
	s.Upgrade = func(*os.File) (content.Content, error) { return nil, nil }
	if out := judge.Run(t, "xorriso", "-abort_on", "WARNING", "-indev", write(t, s), "-ls", "/"); strings.Contains(out, "UPGRADE") {
		t.Errorf("without one:\n%s", out)
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
	name := write(t, testSpec(t))
	out := judge.Run(t, "xorriso", "-abort_on", "WARNING", "-indev", name, "-toc", "-pvd_info", "-report_el_torito", "plain", "-report_system_area", "plain", "-ls", "/")
	for _, want := range []string{
		"Volume id    : 'COSI'", "Creation Time: 2026030405060700", "'BOOT.CAT'", "1  BIOS  y   none  0x0000  0x00      4          31", "2  UEFI  y   none",
		"El Torito img path :   1  /GRUB.IMG", "El Torito img opts :   1  boot-info-table", "El Torito img path :   2  /ESP.IMG", "GPT partition path :   2  /ESP.IMG",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("xorriso does not say %q:\n%s", want, out)
		}
	}
}

func TestBootImageIsAFileSystem(t *testing.T) {
	name := write(t, testSpec(t))
	img := filepath.Join(t.TempDir(), "esp.img")
	judge.Run(t, "xorriso", "-osirrox", "on", "-indev", name, "-extract", "/ESP.IMG", img)
	if out := judge.Run(t, "fsck.vfat", "-n", img); strings.Count(strings.TrimSpace(out), "\n") != 1 {
		t.Errorf("fsck.vfat -n has something to say:\n%s", out)
	}
	got := judge.Run(t, "mtype", "-i", img, "::/EFI/BOOT/BOOTX64.EFI")
	if want, _ := io.ReadAll(content.Reader(testSpec(t).ESP[0].Content)); got != string(want) {
		t.Errorf("the boot image reads back as %d bytes; want %d", len(got), len(want))
	}
}

// What is downloaded is little more than what is booted, and user data can be put on a stick.
func TestSizes(t *testing.T) {
	userdata := filepath.Join(t.TempDir(), "user-data.yaml")
	if err := os.WriteFile(userdata, make([]byte, 256*kib), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, size := range []int64{33 << 20, 37 << 20, 70 << 20, 140 << 20} { // with clusters of 512 bytes to 2 KiB
		s := testSpec(t)
		var j content.Joined
		j.Append(content.String("boot"))
		j.Align(size)
		s.ESP[0].Content, s.Upgrade = &j, nil
		s.ESP = append(s.ESP, fat.File{Path: "grub/grub.cfg", Content: content.String("configuration")})
		name := write(t, s)
		info, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		if more, most := info.Size()-size, size/64+3<<19; more > most || info.Size()%sector != 0 {
			t.Errorf("for %d bytes there are %d more; want at most %d, in whole sectors", size, more, most)
		}
		judge.Run(t, "mcopy", "-i", name+"@@512K", userdata, "::")
	}
}

// Without a loader UEFI alone boots the medium, and nothing points at one.
func TestWithoutALoaderThereIsUEFIAlone(t *testing.T) {
	s := testSpec(t)
	s.Loader = nil
	out := judge.Run(t, "xorriso", "-abort_on", "WARNING", "-indev", write(t, s), "-report_el_torito", "plain", "-ls", "/")
	if !strings.Contains(out, "1  UEFI  y   none") || strings.Contains(out, "BIOS") || strings.Contains(out, "GRUB") {
		t.Errorf("xorriso says:\n%s", out)
	}
}

// As a stick it is a disk like those of nodes: the MBR leads to the first partition.
func TestABIOSFindsTheLoaderOfAStick(t *testing.T) {
	data, err := os.ReadFile(write(t, testSpec(t)))
	if err != nil {
		t.Fatal(err)
	}
	for at, want := range map[int]string{0: "boot.img ", 510: "\x55\xaa", coreStart: "diskboot.img ", loaderLBA * sector: "cdboot.i"} {
		if !bytes.HasPrefix(data[at:], []byte(want)) {
			t.Errorf("at %d there is %q; want %q", at, data[at:at+len(want)], want)
		}
	}
}

func TestPartitionTableNamesTheBootImage(t *testing.T) {
	out := judge.Run(t, "sgdisk", "-v", "-p", write(t, testSpec(t)))
	if !strings.Contains(out, "No problems found") || !strings.Contains(out, "EF02  bios-boot") || !strings.Contains(out, "EF00  esp") {
		t.Errorf("sgdisk -v -p:\n%s", out)
	}
}

func TestWriteGivesTheSameBytes(t *testing.T) {
	a, err := os.ReadFile(write(t, testSpec(t)))
	if err != nil {
		t.Fatal(err)
	}
	s := testSpec(t)
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
