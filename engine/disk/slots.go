package disk

import (
	"errors"
	"os"
	"slices"

	"github.com/cosi-os/cosi/api/layout/gpt"
)

// Slot is a partition that root images are kept on.
type Slot struct {
	Name string // as the partition table has it: "root-a"
	Node string // its device node: "/dev/vda3"
}

// slotNames are the partitions' names.
var slotNames = []string{"root-a", "root-b"}

// ErrNoSlot says that the kernel does not show all slots that the partition table has. It reads the table when the disk is there already.
var ErrNoSlot = errors.New("the kernel does not show the slots of the disk")

// Slots returns the slots of the disk with a GUID. Of several, copies of one image, the one with a state partition comes first. It fails with
// ErrNoDisk if there is none, and with ErrNoSlot.
func Slots(guid gpt.GUID) ([]Slot, error) {
	all, err := withGUID(guid)
	if err != nil {
		return nil, err
	}
	if len(all) == 0 {
		return nil, ErrNoDisk
	}
	slices.SortStableFunc(all, func(a, b *found) int { return min(stateOf(b.table), 0) - min(stateOf(a.table), 0) })
	var slots []Slot
	for _, f := range all {
		of, failed := f.slots()
		slots, err = append(slots, of...), errors.Join(err, failed, f.Close())
	}
	return slots, err
}

func (f *found) slots() (slots []Slot, err error) {
	for index, part := range f.table.Partitions {
		if !slices.Contains(slotNames, part.Name) {
			continue
		}
		if _, err := os.Stat(f.node(index)); err != nil {
			return nil, ErrNoSlot
		}
		slots = append(slots, Slot{part.Name, f.node(index)})
	}
	return slots, nil
}
