// Package bootentry says how the EFI system partition tells systemd-boot what a node can be booted from. The image builder writes the first entry,
// the plugin upgrade those of new versions, and PID 1 looks whether the boot is a trial.
//
//	EFI/BOOT/BOOTX64.EFI          systemd-boot
//	loader/loader.conf
//	loader/entries/NUMBER.conf    an entry; of those that are not bad the one with the highest number is booted
//	EFI/cosi/ROOTHASH.efi         its unified kernel image, named for the root that it runs
//	grub/ROOTHASH.cfg             how GRUB boots the same on a BIOS
//	grub/grubenv                  what GRUB boots next, and how often it will try
//
// An entry on trial has a counter in its file's name, as the boot loader specification has it
// (https://uapi-group.org/specifications/specs/boot_loader_specification/#boot-counting): NUMBER+LEFT-DONE.conf. systemd-boot counts it down before it
// boots, and one with no tries left is bad. Without a counter it is good.
//
// It needs the standard library only, because PID 1 imports it.
package bootentry

import (
	"fmt"
	"path"
	"regexp"
	"strconv"
	"strings"

	"github.com/cosi-os/cosi/api/layout/verity"
)

// Places on the EFI system partition.
const (
	Dir        = "loader/entries"
	KernelDir  = "EFI/cosi"
	ConfigFile = "loader/loader.conf"
)

// Config is the content of ConfigFile: no menu unless a key is held, and nothing in it that nobody made an entry for.
const Config = "timeout 0\neditor no\nauto-entries no\nauto-firmware no\n"

// Tries is how often an entry on trial is booted before it is bad.
const Tries = 3

// State is what is known of an entry.
type State string

const (
	Good   State = "Good"
	Trying State = "Trying"
	Bad    State = "Bad" // no tries are left
)

// Entry is one boot entry.
type Entry struct {
	Number  uint64
	State   State
	Left    int // tries, while Trying
	Done    int // tries, unless Good
	Version string
	Root    verity.Hash
}

// Kernel is the place of the unified kernel image.
func (e Entry) Kernel() string { return KernelDir + "/" + e.Root.String() + ".efi" }

// Path is the place of the entry.
func (e Entry) Path() string { return Dir + "/" + e.Name() }

// Name is that of the entry's file, with its counter.
func (e Entry) Name() string {
	name := fmt.Sprintf("cosi-%08d", e.Number)
	if e.State != Good {
		name += fmt.Sprintf("+%d", e.Left)
		if e.Done > 0 {
			name += fmt.Sprintf("-%d", e.Done)
		}
	}
	return name + ".conf"
}

// Text is what the entry's file holds.
func (e Entry) Text() string {
	return fmt.Sprintf("title COSI %s\nversion %s\nefi /%s\n", e.Version, e.Version, e.Kernel())
}

var namePattern = regexp.MustCompile(`(?i)^cosi-(\d{1,18})(?:\+(\d{1,4})(?:-(\d{1,4}))?)?\.conf$`)

// IsEntry reports whether a file of Dir is one of ours, by its name.
func IsEntry(name string) bool { return namePattern.MatchString(name) }

// Parse reads an entry. It fails, naming what is wrong, for what Name and Text did not write.
func Parse(name, text string) (e Entry, err error) {
	m := namePattern.FindStringSubmatch(name)
	if m == nil {
		return e, fmt.Errorf("%s: no entry of ours", name)
	}
	e.Number, _ = strconv.ParseUint(m[1], 10, 64) // the pattern lets nothing else through
	e.State = Good
	if m[2] != "" {
		e.Left, _ = strconv.Atoi(m[2])
		e.Done, _ = strconv.Atoi(m[3])
		if e.State = Trying; e.Left == 0 {
			e.State = Bad
		}
	}
	for line := range strings.Lines(text) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch key {
		case "version":
			e.Version = value
		case "efi":
			kernel, ours := strings.CutPrefix(value, "/"+KernelDir+"/")
			if e.Root, err = verity.ParseHash(strings.TrimSuffix(kernel, path.Ext(kernel))); err != nil || !ours {
				return e, fmt.Errorf("%s: efi %s: not named for a root", name, value)
			}
		}
	}
	if e.Root == (verity.Hash{}) {
		return e, fmt.Errorf("%s: names no unified kernel image", name)
	}
	return e, nil
}
