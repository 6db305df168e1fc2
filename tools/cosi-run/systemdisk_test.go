package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/cosi-os/cosi/api/layout/gpt"
	"github.com/cosi-os/cosi/tools/qemu/node"
)

const mib = 1 << 20

// newImage writes a small image: a partition of text, one that is empty, and room for the table's copy.
func newImage(t *testing.T, guid byte, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "image.raw")
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(4 * mib); err != nil {
		t.Fatal(err)
	}
	table := &gpt.Table{DiskGUID: gpt.GUID{guid}, Partitions: []gpt.Partition{
		{Type: gpt.GUID{1}, GUID: gpt.GUID{guid, 1}, Name: "esp", Start: 1 * mib, End: 2 * mib},
		{Type: gpt.GUID{2}, GUID: gpt.GUID{guid, 2}, Name: "root-a", Start: 2 * mib, End: 3 * mib},
	}}
	if err := table.Write(f, 4*mib); err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte(text), 1*mib); err != nil {
		t.Fatal(err)
	}
	return file
}

// addState is what a node does on its first boot.
func addState(t *testing.T, file, text string) {
	t.Helper()
	table, err := readTable(file)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(file, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	table.Partitions = append(table.Partitions, gpt.Partition{Type: gpt.State, GUID: gpt.GUID{5}, Name: "state", Start: 3 * mib, End: diskSize - mib})
	if err := table.Write(f, diskSize); err != nil {
		t.Fatal(err)
	}
	for _, at := range []int64{3 * mib, 2 << 30} {
		if _, err := f.WriteAt([]byte(text), at); err != nil {
			t.Fatal(err)
		}
	}
}

func at(t *testing.T, file string, offset int64, length int) string {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, length)
	if _, err := f.ReadAt(b, offset); err != nil {
		t.Fatal(err)
	}
	return string(bytes.TrimRight(b, "\x00"))
}

func TestTheDiskKeepsTheNodesStateFromImageToImage(t *testing.T) {
	o := options{boot: node.UEFI, dir: t.TempDir(), image: newImage(t, 1, "first system, a long one")}
	get := func() system {
		t.Helper()
		s, err := systemDisk(o)
		if err != nil || !s.kept {
			t.Fatalf("systemDisk = %+v, %v", s, err)
		}
		return s
	}
	s := get()
	if got := at(t, s.file, mib, 24); got != "first system, a long one" || s.said != "" {
		t.Fatalf("first run: %q, said %q", got, s.said)
	}
	addState(t, s.file, "state")
	if s := get(); at(t, s.file, 3*mib, 5) != "state" || s.said != "" {
		t.Errorf("the next run has lost the state, or says %q", s.said)
	}

	o.image = newImage(t, 2, "second")
	s = get()
	if got := at(t, s.file, mib, 24); got != "second" || s.said == "" {
		t.Errorf("with another image: %q, said %q; want the new system alone, and that it is said", got, s.said)
	}
	if at(t, s.file, 3*mib, 5) != "state" || at(t, s.file, 2<<30, 5) != "state" {
		t.Error("with another image the state is gone")
	}
	table, err := readTable(s.file)
	if err != nil || table.DiskGUID != (gpt.GUID{2}) || len(table.Partitions) != 3 || table.Partitions[2].Name != "state" || table.Moved {
		t.Errorf("with another image the table is %+v, %v", table, err)
	}

	o.fresh = true
	if s := get(); at(t, s.file, 3*mib, 5) != "" {
		t.Error("a fresh disk holds the old state")
	}
	o.fresh = false
	if err := os.WriteFile(s.file, []byte("garbage"), 0o600); err != nil {
		t.Fatal(err)
	}
	if s := get(); s.said == "" || at(t, s.file, mib, 6) != "second" {
		t.Errorf("after garbage the run says %q", s.said)
	}
}

func TestOtherImagesAreBootedAsTheyAre(t *testing.T) {
	for _, o := range []options{{boot: node.UEFI, image: "x.iso"}, {boot: node.UEFI, image: "x.qcow2"}, {boot: node.Kernel, image: "x.raw"}} {
		if s, err := systemDisk(o); err != nil || s.kept || s.file != o.image {
			t.Errorf("systemDisk(%s, %s) = %+v, %v", o.image, o.boot, s, err)
		}
	}
}
