package boot

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cosi-os/cosi/engine/disk"
	"github.com/cosi-os/cosi/engine/module"
	"github.com/cosi-os/cosi/engine/slot"
)

const (
	// rootImage in the initramfs is the file system to run from.
	rootImage = "/root.erofs"
	// earlyModules in the initramfs lists the modules that mounting it needs, one path a line, in the order to load them.
	earlyModules = "/etc/cosi/modules"
	// modules has those that the disk may need.
	modules = "/usr/lib/modules"
	newRoot = "/newroot"
)

// patience is how long the disk with the root may take to appear.
const patience = 30 * time.Second

// mountRoot mounts the root image: the one in the initramfs, else the one on the disk whose hash the command line has. With neither it
// mounts nothing, and returns false.
func mountRoot() (bool, error) {
	_, err := os.Stat(rootImage)
	hash := KernelValue(disk.HashArgument)
	if errors.Is(err, fs.ErrNotExist) && hash == "" {
		return false, nil
	}
	if err := os.Mkdir(newRoot, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return false, err
	}
	if err == nil {
		if err := mountImage(rootImage, newRoot); err != nil {
			return false, fmt.Errorf("mount %s: %w%s", rootImage, err, withoutArguments())
		}
		return true, nil
	}
	root, err := disk.ParseRoot(hash, KernelValue(disk.OptionsArgument))
	if err != nil {
		return false, err
	}
	drivers, err := module.Open(modules)
	if err != nil {
		return false, err
	}
	device, err := slot.Open(root, slot.Waiter{Search: func() []error { return drivers.ColdPlug(nil) }, Patience: patience, Log: warn})
	if err != nil {
		return false, err
	}
	if err := unix.Mount(device, newRoot, "erofs", imageFlags, ""); err != nil {
		return false, fmt.Errorf("mount %s: %w", device, err)
	}
	return true, nil
}

// withoutArguments says so if the kernel has not those of the image, of which this one lets an erofs be mounted from a file in the initramfs.
func withoutArguments() string {
	if KernelValue("rootfstype") == "ramfs" {
		return ""
	}
	return "; the kernel does not have the image's arguments: iPXE leaves them out when it loads the unified kernel image by itself, and the .ipxe file gives them"
}

// warn tells people, by way of the kernel, before there is a log.
func warn(text string) {
	os.WriteFile("/dev/kmsg", []byte("<3>cosi: "+text+"\n"), 0) // nobody reads it if that fails
}

// RootDevice says where the root is: "/dev/vda3, which dm-verity checks", or "memory".
func RootDevice() string {
	if partition := RootPartition(); partition != "" {
		return partition + ", which dm-verity checks"
	}
	return "memory"
}

// RootPartition returns the device node of the partition that the root is on, "" if it is in memory.
func RootPartition() string {
	var root unix.Stat_t
	if unix.Stat("/", &root) != nil {
		return ""
	}
	dir := fmt.Sprintf("/sys/dev/block/%d:%d/slaves", unix.Major(root.Dev), unix.Minor(root.Dev))
	below, err := os.ReadDir(dir)
	if err != nil || len(below) == 0 {
		return ""
	}
	return "/dev/" + below[0].Name()
}

// switchRoot makes the root image the root, and moves what is mounted already into it. Without an image it leaves the initramfs as the
// root: it returns false.
func switchRoot() (bool, error) {
	if mounted, err := mountRoot(); err != nil || !mounted {
		return false, err
	}
	for _, m := range kernelMounts {
		if err := unix.Mount(m.target, newRoot+m.target, "", unix.MS_MOVE, ""); err != nil {
			return false, fmt.Errorf("move %s: %w", m.target, err)
		}
	}
	free("/")
	if err := unix.Chdir(newRoot); err != nil {
		return false, err
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return false, fmt.Errorf("move the root: %w", err)
	}
	if err := unix.Chroot("."); err != nil {
		return false, fmt.Errorf("chroot: %w", err)
	}
	return true, unix.Chdir("/")
}

// free gives back the memory of the initramfs. The root image stays: the mount holds it open. The engine's own text stays, too, as long
// as it runs.
func free(root string) {
	var here unix.Stat_t
	if unix.Lstat(root, &here) != nil {
		return
	}
	entries, _ := os.ReadDir(root) // what cannot be read is not freed
	for _, entry := range entries {
		path := filepath.Join(root, entry.Name())
		var stat unix.Stat_t
		if unix.Lstat(path, &stat) != nil || stat.Dev != here.Dev {
			continue // another file system: the new root
		}
		if stat.Mode&unix.S_IFMT == unix.S_IFDIR {
			free(path)
		}
		os.Remove(path)
	}
}

// loadEarly loads the modules of the list.
func loadEarly(list string) error {
	text, err := os.ReadFile(list)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for file := range strings.Lines(string(text)) {
		if file = strings.TrimSpace(file); file == "" {
			continue
		}
		if err := module.Load(filepath.Join("/", file)); err != nil {
			return err
		}
	}
	return nil
}
