package upgrade

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// sysfs is a /sys with a disk of four partitions, of which the device mapper's 253:0 is on top of one.
func sysfs(t *testing.T, running string, names map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	write := func(path, text string) {
		t.Helper()
		path = filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	const disk = "devices/pci0000:00/virtio1/block/vda/"
	for partition, name := range names {
		write(disk+partition+"/uevent", "MAJOR=252\nMINOR=1\nDEVTYPE=partition\nPARTNAME="+name+"\n")
		write(disk+partition+"/size", "2048\n")
	}
	write(disk+"queue/rotational", "0\n")
	if running == "" {
		return dir
	}
	write("dev/block/253:0/slaves/"+running, "")
	if err := os.MkdirAll(filepath.Join(dir, "class/block"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("../../"+disk+running, filepath.Join(dir, "class/block", running)); err != nil {
		t.Fatal(err)
	}
	return dir
}

var partitions = map[string]string{"vda1": "bios-boot", "vda2": "esp", "vda3": "root-a", "vda4": "root-b", "vda5": "state"}

func TestWhereTheNodeRunsFrom(t *testing.T) {
	arguments := "console=ttyS0 roothash=" + strings.Repeat("ab", 32) + " quiet"
	for running, want := range map[string][2]slot{
		"vda3": {{"root-a", "/dev/vda3", 1 << 20}, {"root-b", "/dev/vda4", 1 << 20}},
		"vda4": {{"root-b", "/dev/vda4", 1 << 20}, {"root-a", "/dev/vda3", 1 << 20}},
	} {
		sys := sysfs(t, running, partitions)
		m, err := look(sys, unix.Mkdev(253, 0), arguments)
		if err != nil {
			t.Fatal(err)
		}
		if m.running != want[0] || m.other != want[1] || m.esp != "/dev/vda2" || m.firmware != bios || m.root.String() != strings.Repeat("ab", 32) {
			t.Errorf("look = %+v", m)
		}
		if err := os.MkdirAll(filepath.Join(sys, "firmware/efi"), 0o755); err != nil {
			t.Fatal(err)
		}
		if m, err = look(sys, unix.Mkdev(253, 0), arguments); err != nil || m.firmware != uefi {
			t.Errorf("look = %+v, %v; want UEFI", m, err)
		}
	}
	for name, test := range map[string]struct{ sys, arguments string }{
		"the root is in memory":  {sysfs(t, "", partitions), arguments},
		"no argument":            {sysfs(t, "vda3", partitions), "quiet"},
		"another partition":      {sysfs(t, "vda5", partitions), arguments},
		"a disk without an ESP":  {sysfs(t, "vda3", map[string]string{"vda3": "root-a", "vda4": "root-b"}), arguments},
		"a disk with one slot":   {sysfs(t, "vda3", map[string]string{"vda2": "esp", "vda3": "root-a"}), arguments},
		"a disk of other people": {sysfs(t, "vda1", map[string]string{"vda1": "usr"}), arguments},
	} {
		if m, err := look(test.sys, unix.Mkdev(253, 0), test.arguments); !errors.Is(err, errNoSlot) {
			t.Errorf("%s: %+v, %v", name, m, err)
		}
	}
	if _, err := look(sysfs(t, "vda3", partitions), unix.Mkdev(253, 0), "roothash=x"); err == nil || errors.Is(err, errNoSlot) {
		t.Errorf("a hash that is none: %v", err)
	}
}

// Whatever is read, and wherever it begins, comes from blocks that O_DIRECT takes.
func TestReadingBack(t *testing.T) {
	want := make([]byte, 2*block+4096)
	for i := range want {
		want[i] = byte(i * 7 >> 8)
	}
	file := filepath.Join(t.TempDir(), "slot")
	if err := os.WriteFile(file, want, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := reread(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, at := range []int64{0, 1, block - 3, block, 2*block + 1} {
		for _, n := range []int{1, 4095, block / 2, block + 5} {
			got := make([]byte, n)
			count, err := f.ReadAt(got, at)
			if int(at)+n <= len(want) && err != nil {
				t.Errorf("ReadAt(%d bytes, %d) = %v", n, at, err)
			}
			if int(at)+n > len(want) && (err == nil || count != len(want)-int(at)) {
				t.Errorf("ReadAt(%d bytes, %d) = %d, %v; behind the end", n, at, count, err)
			}
			if !bytes.Equal(got[:count], want[at:int(at)+count]) {
				t.Errorf("ReadAt(%d bytes, %d) reads something else", n, at)
			}
		}
	}
}
