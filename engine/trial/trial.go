// Package trial tells PID 1 whether this boot is a trial of a new version: whether its boot entry has a counter. The plugin upgrade takes that away
// when the version is healthy. PID 1 arms a watchdog at once on a trial, and ends one that has gone on for too long, whatever became of the
// plugins and the runtime.
package trial

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/cosi-os/cosi/api/layout/bootentry"
	"github.com/cosi-os/cosi/api/layout/fat"
)

// Longest is how long after the start of the kernel a trial is given up. The plugin's own deadline is shorter (BootHealths).
const Longest = 15 * time.Minute

// Boot is where this boot is from.
type Boot struct {
	// Sys is /sys, Dev is /dev.
	Sys, Dev string
	// Partition is the device node of the root's slot, Hash the root's, as the kernel was told.
	Partition, Hash string
}

// On reports whether the boot is a trial. It is none if the root is not in a slot, or its disk has no boot entries.
func (b Boot) On() (bool, error) {
	if b.Partition == "" || b.Hash == "" {
		return false, nil
	}
	node, err := b.esp()
	if err != nil || node == "" {
		return false, err
	}
	f, err := os.Open(node)
	if err != nil {
		return false, err
	}
	defer f.Close()
	on, err := counted(f, b.Hash)
	if err != nil {
		return false, fmt.Errorf("%s: %w", node, err)
	}
	return on, nil
}

// esp is the device node of the EFI system partition beside the slot, "" without one.
func (b Boot) esp() (string, error) {
	slot, err := filepath.EvalSymlinks(filepath.Join(b.Sys, "class/block", filepath.Base(b.Partition)))
	if err != nil {
		return "", err
	}
	files, err := filepath.Glob(filepath.Join(filepath.Dir(slot), "*/uevent"))
	if err != nil {
		return "", err
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return "", err
		}
		for line := range strings.Lines(string(text)) {
			if strings.TrimSpace(line) == "PARTNAME=esp" {
				return filepath.Join(b.Dev, filepath.Base(filepath.Dir(file))), nil
			}
		}
	}
	return "", nil
}

// counted reports whether an entry of the root has a counter, and none of it has not.
func counted(f *os.File, hash string) (bool, error) {
	system, err := fat.Open(f)
	if err != nil {
		return false, err
	}
	files, err := system.List(bootentry.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	on := false
	for _, file := range files {
		if !bootentry.IsEntry(file.Name) {
			continue
		}
		text, err := system.Read(bootentry.Dir+"/"+file.Name, 4096)
		if err != nil {
			return false, err
		}
		e, err := bootentry.Parse(file.Name, string(text))
		switch {
		case err != nil || e.Root.String() != hash:
		case e.State == bootentry.Good:
			return false, nil
		default:
			on = true
		}
	}
	return on, nil
}
