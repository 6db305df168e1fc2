package disk

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/cosi-os/cosi/api/layout/verity"
)

// Arguments of the kernel's command line that name the root, in systemd's words; see veritytab(5):
//
//	roothash=HASH systemd.verity_root_options=hash-offset=BYTES
//
// They do not say where it is: any slot of any disk that holds the root of that hash will do.
const (
	HashArgument    = "roothash"
	OptionsArgument = "systemd.verity_root_options"
)

// Root is the root image that is wanted.
type Root struct {
	hash verity.Hash
	size int64 // of the image: the tree begins there
}

// ParseRoot reads the values of the two arguments.
func ParseRoot(hash, options string) (r Root, err error) {
	if r.hash, err = verity.ParseHash(hash); err != nil {
		return r, fmt.Errorf("kernel argument %s: %w", HashArgument, err)
	}
	offset, ok := strings.CutPrefix(options, "hash-offset=")
	if r.size, err = strconv.ParseInt(offset, 10, 64); err != nil || !ok || r.size < 0 {
		return r, fmt.Errorf("kernel argument %s: %q is not hash-offset=BYTES", OptionsArgument, options)
	}
	return r, nil
}

func (r Root) String() string { return r.hash.String() }

// slotNames are the names of the partitions that root images are kept on.
var slotNames = []string{"root-a", "root-b"}

// Slot is a partition that holds the root that was asked for.
type Slot struct {
	Node string // its device node: "/dev/vda3"
	Tree *verity.Tree
}

// Find returns a slot that holds the root. Of several disks, copies of one image, the first with a state partition is meant, else the first. It
// fails, saying what the disks have instead, when there is none, or none yet.
func (r Root) Find() (Slot, error) {
	all, err := disks()
	if err != nil {
		return Slot{}, err
	}
	defer closeAll(all, nil)
	return r.find(all)
}

func (r Root) find(all []*found) (Slot, error) {
	var chosen Slot
	var problems []error
	for _, f := range all {
		slot, err := r.on(f)
		switch {
		case err != nil:
			problems = append(problems, err)
		case stateOf(f.table) >= 0:
			return slot, nil
		case chosen.Node == "":
			chosen = slot
		}
	}
	switch {
	case chosen.Node != "":
		return chosen, nil
	case len(problems) == 0:
		return Slot{}, fmt.Errorf("no slot holds the root %s: there is no disk", r)
	}
	return Slot{}, fmt.Errorf("no slot holds the root %s: %s", r, strings.ReplaceAll(errors.Join(problems...).Error(), "\n", "; "))
}

// on returns the slot of a disk that holds the root.
func (r Root) on(f *found) (Slot, error) {
	var problems []error
	for index, part := range f.table.Partitions {
		if !slices.Contains(slotNames, part.Name) {
			continue
		}
		node := f.node(index)
		tree, err := verity.Find(io.NewSectionReader(f, part.Start, part.End-part.Start), r.size, r.hash)
		if err == nil {
			_, err = os.Stat(node) // the kernel reads the table when the disk is there already
		}
		if err == nil {
			return Slot{node, tree}, nil
		}
		problems = append(problems, fmt.Errorf("%s (%s): %w", part.Name, node, err))
	}
	if len(problems) == 0 {
		return Slot{}, fmt.Errorf("%s has no slots", f.path)
	}
	return Slot{}, errors.Join(problems...)
}
