// Package slot opens a root image that lies on a partition of the disk that the node was booted from: it has the kernel check every block
// of it when it is read. PID 1 calls it in an initramfs that holds no root.
//
// The kernel's command line has the hash of the image's tree and says where that begins, in systemd's words; see veritytab(5):
//
//	roothash=HASH systemd.verity_root_options=hash-offset=BYTES cosi.disk=GUID
//
// Which of the two slots the image is in, it does not say: the one whose tree has that hash. A command line that is signed lets nothing else run.
package slot

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/cosi-os/cosi/api/layout/gpt"
	"github.com/cosi-os/cosi/api/layout/verity"
	"github.com/cosi-os/cosi/engine/disk"
)

// Arguments of the kernel's command line, beside disk.Argument.
const (
	HashArgument    = "roothash"
	OptionsArgument = "systemd.verity_root_options"
)

// Root is the root image that is wanted.
type Root struct {
	hash verity.Hash
	size int64 // of the image: the tree begins there
	disk gpt.GUID
}

// Parse reads the values of the three arguments.
func Parse(hash, options, guid string) (r Root, err error) {
	if r.hash, err = verity.ParseHash(hash); err != nil {
		return r, fmt.Errorf("kernel argument %s: %w", HashArgument, err)
	}
	offset, ok := strings.CutPrefix(options, "hash-offset=")
	if r.size, err = strconv.ParseInt(offset, 10, 64); err != nil || !ok || r.size < 0 {
		return r, fmt.Errorf("kernel argument %s: %q is not hash-offset=BYTES", OptionsArgument, options)
	}
	if r.disk, err = gpt.ParseGUID(guid); err != nil {
		return r, fmt.Errorf("kernel argument %s: %w", disk.Argument, err)
	}
	return r, nil
}

// Waiter waits for a disk.
type Waiter struct {
	// Search loads the drivers of what is there. It is called while the disk is not there, again and again: a driver may bring more to look for.
	Search func() []error
	// Patience is how long a disk may take to come.
	Patience time.Duration
	// Log is told, once, that the disk is waited for.
	Log func(string)

	slots func(gpt.GUID) ([]disk.Slot, error) // nil: the machine's
}

const (
	pause = 20 * time.Millisecond
	quiet = time.Second
)

// Open waits for the disk, finds the slot that holds the root, and returns a device that shows the checked image. Nothing can be written
// to it; a block that is not as it was is an I/O error, of which the kernel's log tells. It fails, naming what is missing, without
// the disk, or when none of its slots holds the root.
func (r Root) Open(w Waiter) (device string, err error) {
	slots, err := w.wait(r.disk)
	if err != nil {
		return "", fmt.Errorf("disk %s: %w", r.disk, err)
	}
	slot, tree, err := r.choose(slots)
	if err != nil {
		return "", err
	}
	return open(slot.Node, tree)
}

// wait returns the slots of the disk once it is there.
func (w Waiter) wait(guid gpt.GUID) (slots []disk.Slot, err error) {
	if w.slots == nil {
		w.slots = disk.Slots
	}
	began, said := time.Now(), false
	var problems []error
	for {
		slots, err = w.slots(guid)
		waited := time.Since(began)
		switch {
		case !errors.Is(err, disk.ErrNoDisk) && !errors.Is(err, disk.ErrNoSlot):
			return slots, err
		case waited >= w.Patience:
			return nil, fmt.Errorf("%w, for %v%s", err, w.Patience, list(problems))
		case waited >= quiet && !said:
			w.Log(fmt.Sprintf("waiting for the disk %s, which holds the root", guid))
			said = true
		}
		problems = w.Search()
		time.Sleep(pause)
	}
}

// list is what went wrong with drivers, on one line.
func list(problems []error) (text string) {
	for _, err := range problems {
		text += "; " + err.Error()
	}
	return text
}

// choose returns the first slot that holds the root.
func (r Root) choose(slots []disk.Slot) (disk.Slot, *verity.Tree, error) {
	var problems []string
	for _, slot := range slots {
		tree, err := r.find(slot)
		if err == nil {
			return slot, tree, nil
		}
		problems = append(problems, fmt.Sprintf("%s (%s): %v", slot.Name, slot.Node, err))
	}
	if len(problems) == 0 {
		problems = append(problems, "the disk has no slots")
	}
	return disk.Slot{}, nil, fmt.Errorf("no slot holds the root %s: %s", r.hash, strings.Join(problems, "; "))
}

func (r Root) find(slot disk.Slot) (*verity.Tree, error) {
	f, err := os.Open(slot.Node)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return verity.Find(f, r.size, r.hash)
}
