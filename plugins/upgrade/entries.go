package upgrade

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/cosi-os/cosi/api/layout/bootentry"
	"github.com/cosi-os/cosi/api/layout/fat"
	"github.com/cosi-os/cosi/api/layout/verity"
)

// withESP calls f with the file system that the firmware reads.
func (m *machine) withESP(f func(*fat.FS) error) error {
	d, err := m.open(m.esp)
	if err != nil {
		return err
	}
	defer d.Close()
	system, err := fat.Open(d)
	if err == nil {
		err = f(system)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", m.esp, err)
	}
	return nil
}

// entry is a boot entry.
type entry struct {
	bootentry.Entry
	path string // of its file: on a BIOS another counter may be in its name than GRUB keeps
}

// entries are the boot entries, the one first that is booted next.
type entries []entry

// readEntries reads the boot entries. What is none of ours is left out. Where a cut has left two names of one entry, the one without a
// counter counts.
func readEntries(system *fat.FS, firmware string) (all entries, err error) {
	files, err := system.List(bootentry.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	for _, file := range files {
		if !bootentry.IsEntry(file.Name) {
			continue
		}
		path := bootentry.Dir + "/" + file.Name
		text, err := system.Read(path, 4096)
		if err != nil {
			return nil, err
		}
		if e, err := bootentry.Parse(file.Name, string(text)); err == nil {
			all = append(all, entry{e, path})
		}
	}
	if firmware == bios {
		if all, err = counted(system, all); err != nil {
			return nil, err
		}
	}
	slices.SortFunc(all, func(a, b entry) int {
		switch {
		case (a.State == bootentry.Bad) != (b.State == bootentry.Bad):
			return map[bool]int{true: 1, false: -1}[a.State == bootentry.Bad]
		case a.Number != b.Number:
			return map[bool]int{true: 1, false: -1}[a.Number < b.Number]
		}
		return strings.Compare(string(a.State), string(b.State)) // Good before Trying
	})
	return slices.CompactFunc(all, func(a, b entry) bool { return a.Number == b.Number }), nil
}

// counted are the entries with the counter that GRUB keeps. One on trial that GRUB does not know of is not there.
func counted(system *fat.FS, all entries) (entries, error) {
	env, err := readEnv(system)
	if err != nil {
		return nil, err
	}
	var known entries
	for _, e := range all {
		switch {
		case e.Root == env.Trial:
			e.State, e.Left, e.Done = bootentry.Trying, env.Left, bootentry.Tries-env.Left
			if env.Left == 0 {
				e.State = bootentry.Bad
			}
		case e.Root == env.Good:
			e.State, e.Left, e.Done = bootentry.Good, 0, 0
		case e.State != bootentry.Good:
			continue
		}
		known = append(known, e)
	}
	return known, nil
}

func readEnv(system *fat.FS) (bootentry.Env, error) {
	data, err := system.Read(bootentry.EnvFile, 4096)
	if err != nil {
		return bootentry.Env{}, err
	}
	return bootentry.ParseEnv(data)
}

// setEnv changes what GRUB boots. A disk that no BIOS boots has no such file.
func setEnv(system *fat.FS, env bootentry.Env) error {
	err := system.Overwrite(bootentry.EnvFile, env.Encode())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// of returns the entry of a root.
func (all entries) of(root verity.Hash) (e entry, ok bool) {
	i := slices.IndexFunc(all, func(e entry) bool { return e.Root == root })
	if i < 0 {
		return e, false
	}
	return all[i], true
}

// without returns the first entry of another root.
func (all entries) without(root verity.Hash) (e entry, ok bool) {
	i := slices.IndexFunc(all, func(e entry) bool { return e.Root != root })
	if i < 0 {
		return e, false
	}
	return all[i], true
}

// next is the number for an entry that is to be booted before all others.
func (all entries) next() (n uint64) {
	for _, e := range all {
		n = max(n, e.Number)
	}
	return n + 1
}

// entries reads the boot entries.
func (m *machine) entries() (all entries, err error) {
	err = m.withESP(func(system *fat.FS) error {
		all, err = readEntries(system, m.firmware)
		return err
	})
	return all, err
}

// forget removes what boots another root than the one that runs: first what has it booted, and then what it is made of.
func (m *machine) forget(system *fat.FS) error {
	if err := setEnv(system, bootentry.Env{Good: m.root}); err != nil {
		return err
	}
	mine := bootentry.Entry{Root: m.root}
	for _, in := range []struct {
		dir   string
		stays func(path, name string) (bool, error)
	}{
		{bootentry.Dir, func(path, name string) (bool, error) {
			if !bootentry.IsEntry(name) {
				return true, nil
			}
			text, err := system.Read(path, 4096)
			if err != nil {
				return false, err
			}
			e, err := bootentry.Parse(name, string(text))
			return err == nil && e.Root == m.root, nil
		}},
		{bootentry.KernelDir, func(path, _ string) (bool, error) { return strings.EqualFold(path, mine.Kernel()), nil }},
		{bootentry.GRUBDir, func(path, name string) (bool, error) {
			return strings.EqualFold(path, mine.GRUBFile()) || !rootConfig.MatchString(name), nil
		}},
	} {
		files, err := system.List(in.dir)
		if err != nil && !(errors.Is(err, fs.ErrNotExist) && in.dir == bootentry.GRUBDir) {
			return err
		}
		for _, file := range files {
			path := in.dir + "/" + file.Name
			if stays, err := in.stays(path, file.Name); stays || err != nil {
				if err != nil {
					return err
				}
				continue
			}
			if err := system.Remove(path); err != nil {
				return err
			}
		}
	}
	return nil
}

// rootConfig is the name of what GRUB boots one root by.
var rootConfig = regexp.MustCompile(`^[0-9a-f]{64}\.cfg$`)

// place has a kernel that is there booted next, on trial.
func (m *machine) place(e bootentry.Entry) error {
	return m.withESP(func(system *fat.FS) error {
		text := e.Text()
		if err := system.Write(e.Path(), int64(len(text)), strings.NewReader(text), time.Now()); err != nil {
			return err
		}
		return setEnv(system, bootentry.Env{Good: m.root, Trial: e.Root, Left: e.Left})
	})
}

// again puts an entry that is there before all others, on trial, as the one with a number.
func (m *machine) again(e entry, number uint64) error {
	trial := bootentry.Entry{Number: number, State: bootentry.Trying, Left: bootentry.Tries}
	return m.withESP(func(system *fat.FS) error {
		if err := system.Rename(e.path, trial.Name()); err != nil {
			return err
		}
		return setEnv(system, bootentry.Env{Good: m.root, Trial: e.Root, Left: trial.Left})
	})
}

// bless takes the counter from the entry of the version that runs. Where a cut has left both names, the one with the counter goes.
func (m *machine) bless(e entry) error {
	good := bootentry.Entry{Number: e.Number, State: bootentry.Good}
	return m.withESP(func(system *fat.FS) (err error) {
		if e.path != good.Path() {
			err = system.Rename(e.path, good.Name())
		}
		if errors.Is(err, fs.ErrExist) {
			err = system.Remove(e.path)
		}
		if err != nil {
			return err
		}
		return setEnv(system, bootentry.Env{Good: e.Root})
	})
}

// kernel writes the kernel of a root, and how GRUB boots it.
func kernel(system *fat.FS, root verity.Hash, size int64, content io.Reader, grub string) error {
	e := bootentry.Entry{Root: root}
	if err := system.Write(e.Kernel(), size, content, time.Now()); err != nil || grub == "" {
		return err
	}
	err := system.Write(e.GRUBFile(), int64(len(grub)), strings.NewReader(grub), time.Now())
	if errors.Is(err, fs.ErrNotExist) { // no BIOS boots this disk
		return nil
	}
	return err
}
