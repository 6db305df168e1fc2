// Package slot opens a root image that lies on a partition of a disk: it has the kernel check every block of it when it is read. PID 1 calls it
// in an initramfs that holds no root.
//
// The kernel's command line has the hash of the image's tree (disk.Root). One that is signed lets nothing else run.
package slot

import (
	"fmt"
	"time"

	"github.com/cosi-os/cosi/engine/disk"
)

// Waiter waits for a disk.
type Waiter struct {
	// Search loads the drivers of what is there. It is called while the root is not there, again and again: a driver may bring more to look for.
	Search func() []error
	// Patience is how long a disk may take to come.
	Patience time.Duration
	// Log is told, once, that the root is waited for.
	Log func(string)
}

const (
	firstPause = 20 * time.Millisecond
	lastPause  = 640 * time.Millisecond
	quiet      = time.Second
)

// Open waits for a slot that holds the root, and returns a device that shows the checked image. Nothing can be written to it; a block that is not
// as it was is an I/O error, of which the kernel's log tells. It fails, saying what the disks have instead, when none of them comes to hold
// the root.
func Open(r disk.Root, w Waiter) (device string, err error) {
	slot, err := w.wait(r.Find)
	if err != nil {
		return "", err
	}
	return open(slot.Node, slot.Tree)
}

// wait returns what find does once it does not fail any more.
func (w Waiter) wait(find func() (disk.Slot, error)) (disk.Slot, error) {
	began, said, pause := time.Now(), false, firstPause
	var problems []error
	for {
		slot, err := find()
		waited := time.Since(began)
		switch {
		case err == nil:
			return slot, nil
		case waited >= w.Patience:
			return disk.Slot{}, fmt.Errorf("%w; waited for %v%s", err, w.Patience, list(problems))
		case waited >= quiet && !said:
			w.Log("waiting for a disk: " + err.Error())
			said = true
		}
		problems = w.Search()
		time.Sleep(pause)
		pause = min(2*pause, lastPause)
	}
}

// list is what went wrong with drivers, on one line.
func list(problems []error) (text string) {
	for _, err := range problems {
		text += "; " + err.Error()
	}
	return text
}
