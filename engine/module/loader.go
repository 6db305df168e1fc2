package module

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// Load loads one module from its file. A module that is there already is no error.
func Load(file string) error { return load(file, "") }

func load(file, parameters string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	flags := 0
	if compressed(file) {
		flags = unix.MODULE_INIT_COMPRESSED_FILE
	}
	if err := unix.FinitModule(int(f.Fd()), parameters, flags); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("load module %s: %w", file, err)
	}
	return nil
}

// Loader loads modules of one directory. Its methods may be called by several goroutines.
type Loader struct {
	dir string // /usr/lib/modules/KVER

	mu      sync.Mutex // guards the fields below, and is held while loading: a module is loaded once
	table   table
	alias   *aliases
	builtin map[string]bool // modules that the kernel has without a file; nil: not read yet
	loaded  map[string]bool // files
}

// Open reads the dependencies of the running kernel's modules below dir, /usr/lib/modules. A directory without modules.dep has
// none.
func Open(dir string) (*Loader, error) {
	var uname unix.Utsname
	if err := unix.Uname(&uname); err != nil {
		return nil, err
	}
	l := &Loader{dir: filepath.Join(dir, unix.ByteSliceToString(uname.Release[:])), loaded: map[string]bool{}}
	text, err := os.ReadFile(filepath.Join(l.dir, "modules.dep"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	l.table = parseDep(string(text))
	return l, nil
}

// Load loads a module and what it needs. A name that the kernel has already, as a module or built in, is no error.
func (l *Loader) Load(module string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.load(module, "")
}

// load loads a module with parameters, and what it needs without.
func (l *Loader) load(module, parameters string) error {
	files, ok := l.table.order(module)
	if !ok {
		if l.inKernel(module) {
			return nil
		}
		return fmt.Errorf("module %s: %s has none of that name", module, l.dir)
	}
	for i, file := range files {
		// One that the initramfs has loaded would be read and its signature checked before the kernel says that it is there.
		if _, err := os.Stat("/sys/module/" + name(file) + "/initstate"); l.loaded[file] || err == nil {
			continue
		}
		own := ""
		if i == len(files)-1 {
			own = parameters
		}
		if err := load(filepath.Join(l.dir, file), own); err != nil {
			return err
		}
		l.loaded[file] = true
	}
	return nil
}

// inKernel reports whether the kernel has a module: one that is loaded, or has parameters, is in /sys/module, and modules.builtin names those that
// the kernel was built with. The image may hold no such file.
func (l *Loader) inKernel(module string) bool {
	if _, err := os.Stat(filepath.Join("/sys/module", canonical(module))); err == nil {
		return true
	}
	if l.builtin == nil {
		l.builtin = map[string]bool{}
		text, _ := os.ReadFile(filepath.Join(l.dir, "modules.builtin")) // nothing to be read is nothing known
		for line := range strings.Lines(string(text)) {
			l.builtin[name(strings.TrimSpace(line))] = true
		}
	}
	return l.builtin[canonical(module)]
}

// LoadFor loads the modules that claim a modalias, and returns the first error. The image may hold no modules.alias: then it does
// nothing.
func (l *Loader) LoadFor(modalias string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.readAliases(); err != nil {
		return err
	}
	var first error
	for _, module := range l.alias.modules(strings.TrimSpace(modalias)) {
		if !l.table.has(module) {
			continue // modules.alias may speak of more than the image ships
		}
		if err := l.load(module, ""); err != nil && first == nil {
			first = err
		}
	}
	return first
}

// readAliases reads modules.alias, once.
func (l *Loader) readAliases() error {
	if l.alias != nil {
		return nil
	}
	text, err := os.ReadFile(filepath.Join(l.dir, "modules.alias"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	l.alias = parseAlias(string(text))
	return nil
}

// Network reports whether a modalias is that of a network card: virtio device 1, Hyper-V's synthetic card (HV_NIC_GUID in Linux's
// include/linux/hyperv.h), or PCI class 02.
func Network(modalias string) bool {
	return strings.HasPrefix(modalias, "virtio:d00000001v") || modalias == "vmbus:635161f83edfc546913ff2d2f965ed0e" ||
		strings.HasPrefix(modalias, "pci:") && strings.Contains(modalias, "bc02sc")
}

// descriptions are the files by which devices say what drivers they want. Cards of SD and MMC say it in uevent alone.
var descriptions = []string{"/sys/bus/*/devices/*/modalias", "/sys/class/input/*/modalias", "/sys/devices/virtual/dmi/id/modalias", "/sys/bus/mmc/devices/*/uevent"}

// modalias returns what such a file says, "" if nothing.
func modalias(file string) string {
	text, err := os.ReadFile(file)
	if err != nil {
		return "" // the device is gone
	}
	if filepath.Base(file) == "modalias" {
		return strings.TrimSpace(string(text))
	}
	for line := range strings.Lines(string(text)) {
		if said, ok := strings.CutPrefix(line, "MODALIAS="); ok {
			return strings.TrimSpace(said)
		}
	}
	return ""
}

// ColdPlug loads modules for the devices that are there and that wanted holds for: those on a bus, and input devices. nil wants all of
// them. It returns the errors, one a module.
func (l *Loader) ColdPlug(wanted func(modalias string) bool) []error {
	if _, err := os.Stat(filepath.Join(l.dir, "modules.alias")); err != nil {
		return nil
	}
	var problems []error
	seen := map[string]bool{}
	for _, pattern := range descriptions {
		files, _ := filepath.Glob(pattern) // the pattern is well-formed
		for _, file := range files {
			said := modalias(file)
			if said == "" || seen[said] {
				continue // it wants nothing, or one like it was done
			}
			if _, err := os.Lstat(filepath.Join(filepath.Dir(file), "driver")); err == nil {
				continue // it has what it needs
			}
			seen[said] = true
			if wanted != nil && !wanted(said) {
				continue
			}
			if err := l.LoadFor(said); err != nil {
				problems = append(problems, err)
			}
		}
	}
	return problems
}
