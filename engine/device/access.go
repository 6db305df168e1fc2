package device

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/cosi-os/cosi/api/declaration"
)

// firstGroup is the group of the first declared pattern.
const firstGroup = 10000

// Access says which group a device node belongs to.
//
// Each pattern that a declaration names has a group of its own, and every plugin that names it is a member: several plugins may
// share a device, and none gets a device that it did not name. A node that several patterns fit belongs to the first of them, in the
// order of their text; its mode lets the group write if any plugin of that pattern asked for it.
type Access struct {
	patterns []string // sorted
	write    map[string]bool
	members  map[string][]uint32 // groups of a plugin
	declared map[string][]declaration.Device
	filters  map[string]*filter // of processes, once Confine has made them
}

// NewAccess numbers the patterns of all declarations: the same declarations give the same groups.
func NewAccess(all []*declaration.Declaration) *Access {
	a := &Access{write: map[string]bool{}, members: map[string][]uint32{}, declared: map[string][]declaration.Device{}, filters: map[string]*filter{}}
	for _, d := range all {
		a.declared[d.Name] = d.Devices
		for _, device := range d.Devices {
			a.patterns = append(a.patterns, device.Path)
			a.write[device.Path] = a.write[device.Path] || device.Write
		}
	}
	slices.Sort(a.patterns)
	a.patterns = slices.Compact(a.patterns)
	for _, d := range all {
		for _, device := range d.Devices {
			a.members[d.Name] = append(a.members[d.Name], a.group(device.Path))
		}
		slices.Sort(a.members[d.Name])
		a.members[d.Name] = slices.Compact(a.members[d.Name])
	}
	return a
}

// MakeDirectories makes the directories that the patterns look into. A plugin's sandbox is put on when it starts: a directory that comes
// later, as /dev/input does with the first device, would stay closed to it.
func (a *Access) MakeDirectories() []error {
	var problems []error
	for _, pattern := range a.patterns {
		if err := os.MkdirAll(Directory(pattern), 0o755); err != nil {
			problems = append(problems, err)
		}
	}
	return problems
}

// Directory is the part of a pattern that is one directory: "/dev/input" of "/dev/input/event*".
func Directory(pattern string) string {
	dir := filepath.Dir(pattern)
	for strings.ContainsAny(dir, `*?[\`) {
		dir = filepath.Dir(dir)
	}
	return dir
}

// Groups are the supplementary groups of a plugin.
func (a *Access) Groups(plugin string) []uint32 { return a.members[plugin] }

func (a *Access) group(pattern string) uint32 {
	i, _ := slices.BinarySearch(a.patterns, pattern)
	return firstGroup + uint32(i)
}

// of returns the group and mode of a node; ok is false if no declaration asks for it.
func (a *Access) of(node string) (gid uint32, mode os.FileMode, ok bool) {
	for _, pattern := range a.patterns {
		if fits, err := filepath.Match(pattern, node); err != nil || !fits {
			continue
		}
		if a.write[pattern] {
			return a.group(pattern), 0o660, true
		}
		return a.group(pattern), 0o640, true
	}
	return 0, 0, false
}

// Confine makes a filter for each of the processes, before the first Grant. It fails where the kernel has none: then groups and modes
// alone say who may open a device.
func (a *Access) Confine(processes ...string) error {
	none, err := newFilter() // of all that declare nothing
	if err != nil {
		return err
	}
	filters := map[string]*filter{}
	for _, name := range processes {
		if filters[name] = none; len(a.declared[name]) > 0 {
			if filters[name], err = newFilter(); err != nil {
				return err
			}
		}
	}
	a.filters = filters
	return nil
}

// Attach puts the filter of a process, if there is one, on the control group that it is about to be started in.
func (a *Access) Attach(process string, group *os.File) error {
	if f := a.filters[process]; f != nil {
		return f.attach(group)
	}
	return nil
}

// filter tells every filter what its process may do with a node. One that nobody asked for is told too: its number may have been that of
// another device before.
func (a *Access) filter(node string, stat *unix.Stat_t) error {
	k := key{unix.BPF_DEVCG_DEV_CHAR, unix.Major(stat.Rdev), unix.Minor(stat.Rdev)}
	if stat.Mode&unix.S_IFMT == unix.S_IFBLK {
		k.kind = unix.BPF_DEVCG_DEV_BLOCK
	}
	if slices.Contains(everybodys, k) {
		return nil
	}
	for name, f := range a.filters {
		var access uint32
		for _, device := range a.declared[name] {
			if fits, err := filepath.Match(device.Path, node); err != nil || !fits {
				continue
			}
			if access |= mayRead; device.Write {
				access |= mayWrite
			}
		}
		if err := f.allow(k, access); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// Grant gives a node, a path below /dev, to its group, and lets the plugins that declare it open it. A node that nobody asked for, or that
// everybody may write to anyway (/dev/null), stays as the kernel made it.
func (a *Access) Grant(node string) error {
	var stat unix.Stat_t
	if err := unix.Lstat(node, &stat); err != nil {
		return &os.PathError{Op: "lstat", Path: node, Err: err}
	}
	if kind := stat.Mode & unix.S_IFMT; kind != unix.S_IFBLK && kind != unix.S_IFCHR {
		return nil
	}
	if err := a.filter(node, &stat); err != nil {
		return err
	}
	gid, mode, ok := a.of(node)
	if !ok || stat.Mode&0o006 == 0o006 {
		return nil
	}
	if err := os.Lchown(node, 0, int(gid)); err != nil {
		return err
	}
	return os.Chmod(node, mode)
}

// GrantAll grants the nodes that exist and returns what failed.
func (a *Access) GrantAll() []error {
	var problems []error
	for _, pattern := range a.patterns {
		nodes, _ := filepath.Glob(pattern)
		if !strings.ContainsAny(pattern, `*?[\`) {
			nodes = []string{pattern}
		}
		for _, node := range nodes {
			if err := a.Grant(node); err != nil && !os.IsNotExist(err) {
				problems = append(problems, err)
			}
		}
	}
	return problems
}
