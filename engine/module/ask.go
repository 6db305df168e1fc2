package module

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
)

// ErrMissing says that neither the image nor the kernel has a module.
var ErrMissing = errors.New("no such module")

// fileSystem begins the alias of a file system's module, as the kernel has it: "fs-vfat".
const fileSystem = "fs-"

// Ask loads a module by its name or an alias, with parameters as the kernel takes them ("NAME=VALUE NAME=VALUE") unless it is there
// already. builtIn says that the kernel has it without a module. It fails with ErrMissing, or with what the kernel says.
func (l *Loader) Ask(module, parameters string) (builtIn bool, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	names, err := l.resolve(module)
	if err != nil {
		return false, err
	}
	for _, name := range names {
		if err := l.load(name, parameters); err != nil {
			return false, err
		}
	}
	if len(names) > 0 || l.has(module) {
		return len(names) == 0, nil
	}
	return false, fmt.Errorf("%w: %s has none of the name or alias %q, nor is it built into the kernel", ErrMissing, l.dir, module)
}

// resolve returns the modules of a name or an alias that the image has.
func (l *Loader) resolve(module string) ([]string, error) {
	if l.table.has(module) {
		return []string{module}, nil
	}
	if err := l.readAliases(); err != nil {
		return nil, err
	}
	return slices.DeleteFunc(l.alias.modules(module), func(name string) bool { return !l.table.has(name) }), nil
}

// has reports whether the kernel has a module or a file system by itself.
func (l *Loader) has(module string) bool {
	if name, ok := strings.CutPrefix(module, fileSystem); ok {
		text, _ := os.ReadFile("/proc/filesystems") // nothing to be read is nothing there
		for line := range strings.Lines(string(text)) {
			if fields := strings.Fields(line); len(fields) > 0 && fields[len(fields)-1] == name {
				return true
			}
		}
		return false
	}
	if module == "" || strings.ContainsAny(module, "/.") {
		return false
	}
	return l.inKernel(module)
}
