// Package kernel picks a kernel and its modules out of unpacked Debian packages.
//
// The image builder names the modules it wants; it gets them, with all that they need, in an order in which they load, uncompressed:
// the boot spends no time on xz, and the signature behind each module stays in place.
package kernel

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/ulikunitz/xz"
)

// ErrUnknownModule says that a kernel has no module of a name, built in or not.
var ErrUnknownModule = errors.New("no such module")

// Tree is an unpacked linux-image package, or the three that Debian has made of it since Linux 6.19.
type Tree struct {
	// Release is what uname -r prints: "6.12.107+deb13-cloud-amd64".
	Release string
	// Image is the path of the bzImage (or Image) on the build machine.
	Image string

	// BuiltIn is the file modules.builtin: what is a module in other kernels, one path a line.
	BuiltIn []byte

	dir     string            // …/lib/modules/RELEASE, of the package with the modules
	files   map[string]string // module name → path below dir: kernel/…
	builtin map[string]bool
}

// Module is one kernel module.
type Module struct {
	// Name is as lsmod prints it: with underscores.
	Name string
	// Path lies below /usr/lib/modules/RELEASE: "kernel/fs/erofs/erofs.ko".
	Path string
	// Data is the module itself, with its signature.
	Data []byte
	Info Info
}

// Open reads what is in the directories together. It fails if there is not exactly one kernel, with its modules.
func Open(dirs ...string) (*Tree, error) {
	t := &Tree{files: map[string]string{}, builtin: map[string]bool{}}
	images := find(dirs, "boot/vmlinu[xz]-*")
	split := find(dirs, "usr/lib/modules/*/vmlinu[xz]")
	switch {
	case len(images) == 1 && len(split) == 0:
		t.Image = images[0]
		_, t.Release, _ = strings.Cut(filepath.Base(t.Image), "-")
	case len(images) == 0 && len(split) == 1:
		t.Image, t.Release = split[0], filepath.Base(filepath.Dir(split[0]))
	default:
		return nil, fmt.Errorf("%q: %d kernels; want 1", dirs, len(images)+len(split))
	}
	modules := "/modules/" + t.Release
	lists, trees := find(dirs, "usr/lib"+modules+"/modules.builtin"), find(dirs, "usr/lib"+modules+"/kernel")
	if len(trees) == 0 { // Debian 12 has not merged /lib into /usr in its packages
		lists, trees = find(dirs, "lib"+modules+"/modules.builtin"), find(dirs, "lib"+modules+"/kernel")
	}
	if len(lists) != 1 || len(trees) != 1 {
		return nil, fmt.Errorf("%q: %d lists of what is built into %s, %d trees of its modules; want 1", dirs, len(lists), t.Release, len(trees))
	}
	t.dir = filepath.Dir(trees[0])
	var err error
	if t.BuiltIn, err = os.ReadFile(lists[0]); err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(t.BuiltIn)) {
		t.builtin[nameOf(strings.TrimSpace(line))] = true
	}
	return t, t.scan()
}

// find returns what matches a pattern in the directories.
func find(dirs []string, pattern string) []string {
	var all []string
	for _, dir := range dirs {
		matches, _ := fs.Glob(os.DirFS(dir), pattern) // the pattern is well-formed
		for _, match := range matches {
			all = append(all, filepath.Join(dir, match))
		}
	}
	return all
}

func (t *Tree) scan() error {
	return filepath.WalkDir(filepath.Join(t.dir, "kernel"), func(path string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		if strings.HasSuffix(path, ".ko") || strings.HasSuffix(path, ".ko.xz") {
			relative, err := filepath.Rel(t.dir, path)
			if err != nil {
				return err
			}
			t.files[nameOf(path)] = relative
		}
		return nil
	})
}

// nameOf makes kernel/net/8021q/8021q.ko.xz to 8021q, and virtio-rng to virtio_rng.
func nameOf(path string) string {
	name, _, _ := strings.Cut(filepath.Base(path), ".ko")
	return strings.ReplaceAll(name, "-", "_")
}

// Names are those of all modules that are not built in, sorted.
func (t *Tree) Names() []string {
	names := make([]string, 0, len(t.files))
	for name := range t.files {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// Resolve returns the named modules and everything they need, each after what it needs itself. What is built in is left out. It fails
// with ErrUnknownModule, naming it.
func (t *Tree) Resolve(names ...string) ([]*Module, error) {
	r := resolver{tree: t, state: map[string]bool{}}
	for _, name := range names {
		if err := r.add(nameOf(name)); err != nil {
			return nil, err
		}
	}
	return r.order, nil
}

type resolver struct {
	tree  *Tree
	state map[string]bool // false: being added, true: done
	order []*Module
}

func (r *resolver) add(name string) error {
	if r.tree.builtin[name] {
		return nil
	}
	if done, met := r.state[name]; met {
		if !done {
			return fmt.Errorf("%s: needs itself", name)
		}
		return nil
	}
	r.state[name] = false
	m, err := r.tree.load(name)
	if err != nil {
		return err
	}
	for _, needed := range m.Info.Depends {
		if err := r.add(needed); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	// Soft dependencies are often aliases, of something built in at that; only modules of that very name are taken.
	for _, wished := range m.Info.Before {
		if _, ok := r.tree.files[wished]; ok && !r.tree.builtin[wished] {
			if err := r.add(wished); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
	}
	r.state[name] = true
	r.order = append(r.order, m)
	return nil
}

// asks are modules that another has the kernel load when it is used first, by names that its file does not tell. On a node the kernel loads
// nothing by itself: they count as needed. For vfat they are those of CONFIG_FAT_DEFAULT_CODEPAGE and _IOCHARSET; the others want a
// checksum "crc32c", which is built into the cloud flavour.
var asks = map[string][]string{"vfat": {"nls_cp437", "nls_ascii"}, "ext4": {"crc32c_generic"}, "libcrc32c": {"crc32c_generic"}}

// load reads one module, and keeps its uncompressed form beside the compressed one for the next build.
func (t *Tree) load(name string) (*Module, error) {
	relative, ok := t.files[name]
	if !ok {
		return nil, fmt.Errorf("%s: %w", name, ErrUnknownModule)
	}
	plain := strings.TrimSuffix(relative, ".xz")
	data, err := os.ReadFile(filepath.Join(t.dir, plain))
	if errors.Is(err, os.ErrNotExist) {
		data, err = t.decompress(relative, plain)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	info, err := ReadInfo(bytes.NewReader(data))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", plain, err)
	}
	for _, asked := range asks[name] {
		if _, ok := t.files[asked]; ok && !t.builtin[asked] {
			info.Depends = append(info.Depends, asked)
		}
	}
	return &Module{Name: name, Path: plain, Data: data, Info: info}, nil
}

func (t *Tree) decompress(from, to string) ([]byte, error) {
	f, err := os.Open(filepath.Join(t.dir, from))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	r, err := xz.NewReader(f)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(r)
	if err != nil {
		return nil, err
	}
	target := filepath.Join(t.dir, to)
	// Not visible until it is whole: other builds read the same cache.
	temporary, err := os.CreateTemp(filepath.Dir(target), ".ko-")
	if err != nil {
		return nil, err
	}
	_, err = temporary.Write(data)
	if err := errors.Join(err, temporary.Close()); err != nil {
		return nil, errors.Join(err, os.Remove(temporary.Name()))
	}
	return data, os.Rename(temporary.Name(), target)
}
