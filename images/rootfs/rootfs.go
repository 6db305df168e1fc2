// Package rootfs writes a node's root: an erofs image
// (https://docs.kernel.org/filesystems/erofs.html) made from a list of entries, everything owned
// by root and dated alike. The image builder calls it; the same entries and time give the
// same bytes. A node without a disk keeps the whole image in memory, so files are compressed with LZ4, which
// costs a boot least; no library writes that. Open reads such an image.
package rootfs

import (
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/cosi-os/cosi/images/content"
)

// Entry is one file, directory or symbolic link of the root.
type Entry struct {
	Path    string          // relative and clean: "usr/bin/engine"
	Mode    fs.FileMode     // permission bits, with fs.ModeDir or fs.ModeSymlink for these
	Target  string          // of a symbolic link
	Content content.Content // of a file; nil is an empty file
}

// Write writes the image of entries, in any order, into f, which is empty. Directories that are
// not listed are made with mode 0755. It fails on a path that is not clean, is listed
// twice, or lies below something that is no directory; and on a mode with other bits than
// permissions, so that no setuid file and no device enters an image.
func Write(f *os.File, entries []Entry, t time.Time) error {
	all, err := withParents(entries)
	if err != nil {
		return fmt.Errorf("root: %w", err)
	}
	size, err := write(f, nodes(all), t)
	if err == nil {
		err = f.Truncate(size)
	}
	if err != nil {
		return fmt.Errorf("root: %w", err)
	}
	return nil
}

// withParents checks entries and returns them sorted, with their directories, the root ("") first.
func withParents(entries []Entry) ([]Entry, error) {
	byPath := map[string]Entry{}
	for _, e := range entries {
		if err := check(e); err != nil {
			return nil, fmt.Errorf("%q: %w", e.Path, err)
		}
		if _, ok := byPath[e.Path]; ok {
			return nil, fmt.Errorf("%q: listed twice", e.Path)
		}
		byPath[e.Path] = e
	}
	for _, e := range entries {
		for dir := path.Dir(e.Path); dir != "."; dir = path.Dir(dir) {
			switch d, ok := byPath[dir]; {
			case !ok:
				byPath[dir] = Entry{Path: dir, Mode: fs.ModeDir | 0o755}
			case !d.Mode.IsDir():
				return nil, fmt.Errorf("%q: %q is not a directory", e.Path, dir)
			}
		}
	}
	all := []Entry{{Mode: fs.ModeDir | 0o755}}
	for _, e := range byPath {
		all = append(all, e)
	}
	slices.SortFunc(all, func(a, b Entry) int { return strings.Compare(a.Path, b.Path) })
	return all, nil
}

func check(e Entry) error {
	switch {
	case !fs.ValidPath(e.Path) || e.Path == ".":
		return fmt.Errorf("not a clean relative path")
	case e.Mode&^(fs.ModePerm|fs.ModeDir|fs.ModeSymlink) != 0:
		return fmt.Errorf("mode %v: only files, directories and symbolic links", e.Mode)
	case (e.Mode&fs.ModeSymlink != 0) != (e.Target != ""):
		return fmt.Errorf("a symbolic link has a target, and nothing else has")
	case e.Content != nil && !e.Mode.IsRegular():
		return fmt.Errorf("mode %v: only files have content", e.Mode)
	}
	return nil
}
