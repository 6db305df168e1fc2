package upgrade

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
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

// entries are the boot entries, the one first that is booted next.
type entries []bootentry.Entry

// readEntries reads the boot entries. What is none of ours is left out. Where a cut has left two names of one entry, the one without a
// counter counts.
func readEntries(system *fat.FS) (all entries, err error) {
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
		text, err := system.Read(bootentry.Dir+"/"+file.Name, 4096)
		if err != nil {
			return nil, err
		}
		if e, err := bootentry.Parse(file.Name, string(text)); err == nil {
			all = append(all, e)
		}
	}
	slices.SortFunc(all, func(a, b bootentry.Entry) int {
		switch {
		case (a.State == bootentry.Bad) != (b.State == bootentry.Bad):
			return map[bool]int{true: 1, false: -1}[a.State == bootentry.Bad]
		case a.Number != b.Number:
			return map[bool]int{true: 1, false: -1}[a.Number < b.Number]
		}
		return strings.Compare(string(a.State), string(b.State)) // Good before Trying
	})
	return slices.CompactFunc(all, func(a, b bootentry.Entry) bool { return a.Number == b.Number }), nil
}

// of returns the entry of a root.
func (all entries) of(root verity.Hash) (e bootentry.Entry, ok bool) {
	i := slices.IndexFunc(all, func(e bootentry.Entry) bool { return e.Root == root })
	if i < 0 {
		return e, false
	}
	return all[i], true
}

// without returns the first entry of another root.
func (all entries) without(root verity.Hash) (e bootentry.Entry, ok bool) {
	i := slices.IndexFunc(all, func(e bootentry.Entry) bool { return e.Root != root })
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
		all, err = readEntries(system)
		return err
	})
	return all, err
}

// forget removes what boots another root than the one that runs: first every entry, then the kernels.
func (m *machine) forget(system *fat.FS) error {
	files, err := system.List(bootentry.Dir)
	if err != nil {
		return err
	}
	for _, file := range files {
		if !bootentry.IsEntry(file.Name) {
			continue
		}
		path := bootentry.Dir + "/" + file.Name
		text, err := system.Read(path, 4096)
		if err != nil {
			return err
		}
		if e, err := bootentry.Parse(file.Name, string(text)); err == nil && e.Root == m.root {
			continue
		}
		if err := system.Remove(path); err != nil {
			return err
		}
	}
	if files, err = system.List(bootentry.KernelDir); err != nil {
		return err
	}
	for _, file := range files {
		path := bootentry.KernelDir + "/" + file.Name
		if strings.EqualFold(path, bootentry.Entry{Root: m.root}.Kernel()) {
			continue
		}
		if err := system.Remove(path); err != nil {
			return err
		}
	}
	return nil
}

// place adds the entry that boots a kernel, which is there.
func (m *machine) place(e bootentry.Entry) error {
	return m.withESP(func(system *fat.FS) error {
		text := e.Text()
		return system.Write(e.Path(), int64(len(text)), strings.NewReader(text), time.Now())
	})
}

// again puts an entry that is there before all others, on trial, as the one with a number.
func (m *machine) again(e bootentry.Entry, number uint64) error {
	trial := e
	trial.Number, trial.State, trial.Left, trial.Done = number, bootentry.Trying, bootentry.Tries, 0
	return m.withESP(func(system *fat.FS) error { return system.Rename(e.Path(), trial.Name()) })
}

// bless takes the counter from an entry. Where a cut has left both names, the one with the counter goes.
func (m *machine) bless(e bootentry.Entry) error {
	good := e
	good.State = bootentry.Good
	return m.withESP(func(system *fat.FS) error {
		err := system.Rename(e.Path(), good.Name())
		if errors.Is(err, fs.ErrExist) {
			return system.Remove(e.Path())
		}
		return err
	})
}

// kernel writes the kernel of a root.
func kernel(system *fat.FS, root verity.Hash, size int64, content io.Reader) error {
	return system.Write(bootentry.Entry{Root: root}.Kernel(), size, content, time.Now())
}
