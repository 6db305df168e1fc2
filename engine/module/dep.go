// Package module loads kernel modules: by name with what they need, and by the modalias of devices. PID 1 calls it.
package module

import (
	"path"
	"strings"
)

// table is a parsed modules.dep.
type table map[string]entry

// entry is a module's file and the files of what it needs, the first to load last, as depmod writes them.
type entry struct {
	file  string
	needs []string
}

// parseDep reads modules.dep: "kernel/a/b.ko.xz: kernel/c.ko.xz kernel/d.ko.xz". Lines that are not of this form are ignored.
func parseDep(text string) table {
	t := table{}
	for line := range strings.Lines(text) {
		file, needs, ok := strings.Cut(line, ":")
		if file = strings.TrimSpace(file); !ok || file == "" || strings.HasPrefix(file, "#") {
			continue
		}
		t[name(file)] = entry{file: file, needs: strings.Fields(needs)}
	}
	return t
}

// has reports whether the table knows a module.
func (t table) has(module string) bool {
	_, ok := t[canonical(module)]
	return ok
}

// order lists the files to load for a module, the module last; ok is false if the table does not know it.
func (t table) order(module string) (files []string, ok bool) {
	e, ok := t[canonical(module)]
	if !ok {
		return nil, false
	}
	for i := len(e.needs) - 1; i >= 0; i-- {
		files = append(files, e.needs[i])
	}
	return append(files, e.file), true
}

// name of the module in a file: "kernel/drivers/net/virtio-net.ko.xz" is virtio_net, as in /sys/module.
func name(file string) string {
	base, _, _ := strings.Cut(path.Base(file), ".ko")
	return canonical(base)
}

func canonical(module string) string { return strings.ReplaceAll(module, "-", "_") }

// compressed reports whether the kernel has to unpack a file.
func compressed(file string) bool { return !strings.HasSuffix(file, ".ko") }
