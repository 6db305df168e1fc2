// Package bootabletest makes small disks that boot versions made of text, for the tests of package bootable and of those who call it.
package bootabletest

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/cosi-os/cosi/api/layout/bootentry"
	"github.com/cosi-os/cosi/api/layout/verity"
	"github.com/cosi-os/cosi/hack/bootable"
	"github.com/cosi-os/cosi/images/content"
	"github.com/cosi-os/cosi/images/disk"
	"github.com/cosi-os/cosi/images/fat"
)

// DataSize is how large the roots are, without their trees.
const DataSize = 4 * verity.Block

// Version returns one.
func Version(t testing.TB, name string) bootable.Version {
	t.Helper()
	data := bytes.Repeat([]byte("root of "+name+"\n"), DataSize)[:DataSize]
	tree, root, err := verity.Make(bytes.NewReader(data), DataSize)
	if err != nil {
		t.Fatal(err)
	}
	slot := bytes.TrimRight(append(data, tree...), "\x00")
	return bootable.Version{Name: name, Root: root, Slot: slot, Kernel: bytes.Repeat([]byte("kernel of "+name+"\n"), 5000), GRUB: []byte("boots " + name)}
}

// Contents are the files of an EFI system partition, by their paths, and what is in the slots.
type Contents struct {
	Files map[string]string
	Slots [2]string
}

// Add adds the files that boot a version.
func (c Contents) Add(v bootable.Version, entry bootentry.Entry) {
	entry.Version, entry.Root = v.Name, v.Root
	c.Files[entry.Path()], c.Files[entry.Kernel()], c.Files[entry.GRUBFile()] = entry.Text(), string(v.Kernel), string(v.GRUB)
}

// Disk writes a disk with all that, and returns its size. The file is closed when the test ends.
func (c Contents) Disk(t testing.TB) (*os.File, int64) {
	t.Helper()
	spec := disk.Spec{DiskGUID: "01234567-89AB-CDEF-0123-456789ABCDEF", Time: time.Unix(1_760_000_000, 0), ESPSize: 34 << 20, RootSize: 1 << 20}
	for i := range spec.PartitionGUIDs {
		spec.PartitionGUIDs[i] = "01234567-89AB-CDEF-0123-00000000000" + string(rune('1'+i))
	}
	for path, text := range c.Files {
		spec.ESP = append(spec.ESP, fat.File{Path: path, Content: content.String(text)})
	}
	for i, slot := range c.Slots {
		spec.Roots[i] = content.String(slot)
	}
	f, err := os.Create(filepath.Join(t.TempDir(), "disk"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if err := spec.Write(f); err != nil {
		t.Fatal(err)
	}
	return f, spec.Size()
}
