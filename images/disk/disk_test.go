package disk

import (
	"bytes"
	"encoding/binary"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cosi-os/cosi/images/content"
	"github.com/cosi-os/cosi/images/fat"
	"github.com/cosi-os/cosi/images/grub"
	"github.com/cosi-os/cosi/images/grub/grubtest"
	"github.com/cosi-os/cosi/images/internal/judge"
)

// Where the slots are in a disk of the usual sizes.
const (
	rootA = espStart + DefaultSize
	rootB = rootA + DefaultSize
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
		DiskGUID: "01234567-89AB-CDEF-0123-456789ABCDEF",
		PartitionGUIDs: [4]string{
			"01234567-89AB-CDEF-0123-000000000001", "01234567-89AB-CDEF-0123-000000000002",
			"01234567-89AB-CDEF-0123-000000000003", "01234567-89AB-CDEF-0123-000000000004",
		},
		Loader:   loader,
		VolumeID: 0xc0510001,
		ESP:      []fat.File{{Path: "EFI/BOOT/BOOTX64.EFI", Content: content.String(strings.Repeat("uki", 100000))}},
		Roots:    [2]content.Content{content.String("root of slot A")},
		Time:     time.Unix(1_760_000_000, 0),
	}
}

func write(t *testing.T, s Spec) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "disk.raw"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if err := s.Write(f); err != nil {
		t.Fatal(err)
	}
	return f
}

func TestJudgesAreContent(t *testing.T) {
	f := write(t, testSpec(t))
	if out := judge.Run(t, "sgdisk", "-v", f.Name()); !strings.Contains(out, "No problems found") {
		t.Errorf("sgdisk -v:\n%s", out)
	}
	esp, err := os.Create(filepath.Join(t.TempDir(), "esp"))
	if err != nil {
		t.Fatal(err)
	}
	defer esp.Close()
	if _, err := io.Copy(esp, io.NewSectionReader(f, espStart, rootA-espStart)); err != nil {
		t.Fatal(err)
	}
	if out := judge.Run(t, "fsck.vfat", "-n", esp.Name()); strings.Count(strings.TrimSpace(out), "\n") != 1 {
		t.Errorf("fsck.vfat -n has something to say:\n%s", out)
	}
	got := judge.Run(t, "mtype", "-i", f.Name()+"@@2M", "::/EFI/BOOT/BOOTX64.EFI")
	if got != strings.Repeat("uki", 100000) {
		t.Errorf("the boot image reads back as %d bytes", len(got))
	}
}

// A BIOS starts what is in the MBR, and that what is in the first partition.
func TestABIOSFindsTheLoader(t *testing.T) {
	f := write(t, testSpec(t))
	mbr, core := make([]byte, 512), make([]byte, 512)
	if _, err := f.ReadAt(mbr, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := f.ReadAt(core, biosStart); err != nil {
		t.Fatal(err)
	}
	if first := binary.LittleEndian.Uint64(mbr[0x5c:]); !bytes.HasPrefix(mbr, []byte("boot.img ")) || first != biosStart/512 || mbr[510] != 0x55 || mbr[511] != 0xaa {
		t.Errorf("the MBR loads sector %d and is\n%q", first, mbr)
	}
	if !bytes.HasPrefix(core, []byte("diskboot.img ")) {
		t.Errorf("the BIOS boot partition begins\n%q", core)
	}
}

func TestSlotsAndHoles(t *testing.T) {
	f := write(t, testSpec(t))
	st, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	if size := testSpec(t).Size(); st.Size() != size || size != 771*mib {
		t.Errorf("the image has %d bytes, of %d; want 771 MiB", st.Size(), size)
	}
	if used := st.Sys().(*syscall.Stat_t).Blocks * 512; used > 4*mib {
		t.Errorf("the image takes %d KiB on disk: it is not sparse", used>>10)
	}
	a, b := make([]byte, 14), make([]byte, 14)
	if _, err := f.ReadAt(a, rootA); err != nil {
		t.Fatal(err)
	}
	if _, err := f.ReadAt(b, rootB); err != nil {
		t.Fatal(err)
	}
	if string(a) != "root of slot A" || !bytes.Equal(b, make([]byte, 14)) {
		t.Errorf("slots A and B begin %q and %q", a, b)
	}
}

func TestWriteRefusesARootThatDoesNotFit(t *testing.T) {
	s := testSpec(t)
	s.Roots[1] = io.NewSectionReader(nil, 0, 256*mib+1)
	f, err := os.Create(filepath.Join(t.TempDir(), "disk.raw"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := s.Write(f); err == nil || err.Error() != "disk: root-b: 257 MiB do not fit into 256 MiB" {
		t.Errorf("Write = %v", err)
	}
}

// A definition may have larger partitions, and more; what is in them is where the table says.
func TestSizesAndExtraPartitions(t *testing.T) {
	s := testSpec(t)
	s.ESPSize, s.RootSize = 64*mib, 300*mib
	s.Extra = []Partition{
		{Name: "data", GUID: "01234567-89AB-CDEF-0123-000000000005", Size: 8 * mib},
		{Name: "seed", GUID: "01234567-89AB-CDEF-0123-000000000006", Size: mib, Content: content.String("seed of a node")},
	}
	f := write(t, s)
	out := judge.Run(t, "sgdisk", "-v", "-p", f.Name())
	for _, want := range []string{"No problems found", "64.0 MiB    EF00  esp", "300.0 MiB   8300  root-a", "300.0 MiB   8300  root-b", "8.0 MiB     8300  data", "1024.0 KiB  8300  seed"} {
		if !strings.Contains(out, want) {
			t.Errorf("sgdisk does not say %q:\n%s", want, out)
		}
	}
	for at, want := range map[int64]string{66 * mib: "root of slot A", (66 + 600 + 8) * mib: "seed of a node"} {
		got := make([]byte, len(want))
		if _, err := f.ReadAt(got, at); err != nil || string(got) != want {
			t.Errorf("at %d: %q, %v; want %q", at, got, err, want)
		}
	}
	if size := int64(66+600+9+1) * mib; s.Size() != size {
		t.Errorf("the image has %d bytes; want %d", s.Size(), size)
	}
	s.Extra[1].Content = content.String(strings.Repeat("x", mib+1))
	if err := s.Write(f); err == nil || err.Error() != "disk: seed: 2 MiB do not fit into 1 MiB" {
		t.Errorf("Write = %v", err)
	}
}
