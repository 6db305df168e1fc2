package boot

import (
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// etcFiles are what programs expect below /etc. Everything else there is the image's own, or nothing.
var etcFiles = []struct{ name, text string }{
	{"hosts", "127.0.0.1 localhost\n::1 localhost\n"},
	{"nsswitch.conf", "hosts: files dns\n"},
}

// etcLinks point to what the network plugin writes and to what the image has.
var etcLinks = []struct{ name, target string }{
	{"resolv.conf", "/run/cosi/network/resolv.conf"},
	{"os-release", "../usr/lib/os-release"},
	{"mtab", "../proc/self/mounts"},
}

// kept is an entry of the image's /etc that is to be seen through the tmpfs.
type kept struct {
	name string
	tree int // a detached copy of a directory's mount
	link string
	data []byte
}

// keepEtc holds on to the image's own entries of /etc before a tmpfs covers them.
func keepEtc(dir string) []kept {
	entries, _ := os.ReadDir(dir) // no directory, nothing to keep
	var all []kept
	for _, entry := range entries {
		path := filepath.Join(dir, entry.Name())
		k := kept{name: entry.Name(), tree: -1}
		var err error
		switch {
		case entry.IsDir():
			k.tree, err = unix.OpenTree(unix.AT_FDCWD, path, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
		case entry.Type()&os.ModeSymlink != 0:
			k.link, err = os.Readlink(path)
		default:
			k.data, err = os.ReadFile(path)
		}
		if err == nil {
			all = append(all, k)
		}
	}
	return all
}

// restoreEtc puts the entries into the tmpfs.
func restoreEtc(dir string, all []kept) error {
	for _, k := range all {
		path := filepath.Join(dir, k.name)
		var err error
		switch {
		case k.tree >= 0:
			if err = os.Mkdir(path, 0o755); err == nil {
				err = unix.MoveMount(k.tree, "", unix.AT_FDCWD, path, unix.MOVE_MOUNT_F_EMPTY_PATH)
			}
			unix.Close(k.tree)
		case k.link != "":
			err = os.Symlink(k.link, path)
		default:
			err = os.WriteFile(path, k.data, 0o644)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// fillEtc writes what the image did not bring.
func fillEtc(dir string) error {
	for _, f := range etcFiles {
		path := filepath.Join(dir, f.name)
		if _, err := os.Lstat(path); err == nil {
			continue
		}
		if err := os.WriteFile(path, []byte(f.text), 0o644); err != nil {
			return err
		}
	}
	for _, l := range etcLinks {
		path := filepath.Join(dir, l.name)
		if _, err := os.Lstat(path); err == nil {
			continue
		}
		if err := os.Symlink(l.target, path); err != nil {
			return err
		}
	}
	return nil
}
