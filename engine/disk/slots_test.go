package disk

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/cosi-os/cosi/api/layout/gpt"
)

// A slot is there when the kernel has read the table, which is later than the disk.
func TestSlotsAreThereTogether(t *testing.T) {
	f := &found{path: filepath.Join(t.TempDir(), "sda"), table: &gpt.Table{Partitions: []gpt.Partition{{Name: "esp"}, {Name: "root-a"}, {Name: "root-b"}}}}
	make := func(partition string) {
		if err := os.WriteFile(f.path+partition, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	make("2")
	if slots, err := f.slots(); !errors.Is(err, ErrNoSlot) {
		t.Errorf("with one of two: %v, %v", slots, err)
	}
	make("3")
	if slots, err := f.slots(); err != nil || !slices.Equal(slots, []Slot{{"root-a", f.path + "2"}, {"root-b", f.path + "3"}}) {
		t.Errorf("with both: %v, %v", slots, err)
	}
	f.table.Partitions = f.table.Partitions[:1]
	if slots, err := f.slots(); err != nil || len(slots) != 0 {
		t.Errorf("of a table without slots: %v, %v", slots, err)
	}
}
