// Package extension reads system extensions: files of other people, and plugins, that an image has beside what this repository brings. They are
// merged into the root when the image is built.
//
// An extension has the form of systemd-sysext's: a directory NAME, or an erofs image NAME.raw, with everything below usr/, and with
// usr/lib/extension-release.d/extension-release.NAME, which says ID=cosi (or _any) and may say ARCHITECTURE=x86-64 or arm64. A plugin is its
// plugin.json under the name usr/lib/cosi/plugins/NAME.json, the executable usr/lib/cosi/bin/NAME and, where it brings kinds of its own, their
// descriptors, usr/lib/cosi/plugins/NAME.binpb.
//
// Definitions name extensions, the image builder merges them. Opening one reads all of it: what it says is checked once, and what is in the
// image is what was checked.
package extension

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/cosi-os/cosi/api/declaration"
	"github.com/cosi-os/cosi/images/rootfs"
	"github.com/cosi-os/cosi/images/rules"
)

// Extension is one that was read.
type Extension struct {
	Name string
	// Entries are what it adds to the root, without the declarations of plugins: those are completed first.
	Entries []rootfs.Entry
	// Plugins are in the order of their names.
	Plugins []Plugin
	// Digest is the SHA-256 of all paths, modes and contents. How it is packed makes no difference.
	Digest string
}

// Plugin is one that an extension brings.
type Plugin struct {
	Declaration *declaration.Declaration
	// Kinds are the descriptors of its own kinds, nil if it has none.
	Kinds []byte
}

const (
	releases     = "usr/lib/extension-release.d"
	programs     = "usr/lib/cosi/bin"
	declarations = "usr/lib/cosi/plugins"
)

var namePattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)

// Name is the name of the extension at a path.
func Name(file string) string { return strings.TrimSuffix(filepath.Base(file), ".raw") }

// Open reads the extension at a path for an image of an architecture. It fails with all that is wrong with it.
func Open(file, arch string) (*Extension, error) {
	x := &Extension{Name: Name(file)}
	if !namePattern.MatchString(x.Name) {
		return nil, fmt.Errorf("%s: %q is not an extension's name (letters, digits, dots, hyphens, underscores)", file, x.Name)
	}
	info, err := os.Stat(file)
	if err != nil {
		return nil, err
	}
	files := os.DirFS(file)
	if !info.IsDir() {
		f, err := os.Open(file)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		if files, err = rootfs.Open(f); err != nil {
			return nil, fmt.Errorf("%s: %w (a directory, or an image that this repository makes)", file, err)
		}
	}
	if err := x.read(files, arch); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return x, nil
}

// read takes in all files.
func (x *Extension) read(files fs.FS, arch string) error {
	var problems []error
	all := map[string]rootfs.Entry{}
	digest := sha256.New()
	err := fs.WalkDir(files, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || name == "." {
			return err
		}
		e, data, err := readEntry(files, name, entry)
		if err != nil {
			return err
		}
		fmt.Fprintf(digest, "%s %v %q %x\n", name, e.Mode, e.Target, sha256.Sum256(data))
		if err := errors.Join(place(e, x.Name), rules.Check(e, arch)); err != nil {
			problems = append(problems, err)
		}
		all[name] = e
		switch dir, base := path.Split(name); {
		case e.Mode.IsRegular() && dir == declarations+"/" && strings.HasSuffix(base, ".json"):
			p, err := declared(files, strings.TrimSuffix(base, ".json"), data)
			if err != nil {
				problems = append(problems, fmt.Errorf("/%s: %w", name, err))
				return nil
			}
			x.Plugins = append(x.Plugins, *p)
		case dir == declarations+"/":
		case !e.Mode.IsDir():
			x.Entries = append(x.Entries, e)
		}
		return nil
	})
	if err != nil {
		return err
	}
	x.Digest = hex.EncodeToString(digest.Sum(nil))
	problems = append(problems, x.release(files, arch))
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if err := x.belongs(all[name]); err != nil {
			problems = append(problems, err)
		}
	}
	return errors.Join(problems...)
}

// readEntry reads one file, directory or link. What is neither is left to the rules. Of its permissions it counts only whether a file may be
// executed: the rest is whatever the umask was when somebody wrote it.
func readEntry(files fs.FS, name string, entry fs.DirEntry) (e rootfs.Entry, data []byte, err error) {
	info, err := entry.Info()
	if err != nil {
		return e, nil, err
	}
	e = rootfs.Entry{Path: name, Mode: info.Mode()&^fs.ModePerm | 0o644}
	if info.IsDir() || info.Mode().Perm()&0o111 != 0 {
		e.Mode |= 0o111
	}
	switch {
	case info.Mode().IsRegular():
		data, err = fs.ReadFile(files, name)
		e.Content = bytes.NewReader(data)
	case info.Mode()&fs.ModeSymlink != 0:
		e.Target, err = fs.ReadLink(files, name)
		e.Mode = fs.ModeSymlink | 0o777
	}
	return e, data, err
}

// place refuses what an extension has no business with: everything but usr/, and there what the image itself writes.
func place(e rootfs.Entry, name string) error {
	below := func(dir string) bool { return e.Path == dir || strings.HasPrefix(e.Path, dir+"/") }
	switch {
	case e.Path != "usr" && !below("usr"):
		return fmt.Errorf("/%s: an extension has nothing outside of /usr", e.Path)
	case e.Mode.IsDir():
		return nil
	case below("usr/lib/modules"):
		return fmt.Errorf("/%s: modules come with the kernel: name them in kernel.modules", e.Path)
	case below(releases) && e.Path != releases+"/extension-release."+name:
		return fmt.Errorf("/%s: want extension-release.%s", e.Path, name)
	case below("usr/lib/cosi") && path.Dir(e.Path) != programs && path.Dir(e.Path) != declarations:
		return fmt.Errorf("/%s: an extension has nothing below /usr/lib/cosi but plugins (bin/NAME, plugins/NAME.json, plugins/NAME.binpb)", e.Path)
	}
	return nil
}

// belongs refuses what lies among the plugins and is of none.
func (x *Extension) belongs(e rootfs.Entry) error {
	dir, base := path.Dir(e.Path), path.Base(e.Path)
	if e.Mode.IsDir() || dir != programs && dir != declarations || dir == declarations && path.Ext(base) == ".json" {
		return nil
	}
	for _, p := range x.Plugins {
		if dir == programs && base == p.Declaration.Name || dir == declarations && base == declaration.DefinitionsFile(p.Declaration.Name) {
			return nil
		}
	}
	return fmt.Errorf("/%s: belongs to no plugin of the extension", e.Path)
}

// declared is the plugin of a declaration.
func declared(files fs.FS, name string, data []byte) (*Plugin, error) {
	d, err := declaration.Parse(data)
	if err != nil {
		return nil, err
	}
	if d.Name != name {
		return nil, fmt.Errorf("name: %q; want the file's, %q", d.Name, name)
	}
	if len(d.Argv) > 0 || d.UID != 0 || d.GID != 0 {
		return nil, errors.New("argv, uid, gid: the image says how a plugin is started, and as whom")
	}
	info, err := fs.Stat(files, programs+"/"+name)
	if err != nil {
		return nil, fmt.Errorf("no executable: %w", err)
	}
	if info.Mode().Perm()&0o111 == 0 {
		return nil, fmt.Errorf("/%s/%s may not be executed", programs, name)
	}
	kinds, err := fs.ReadFile(files, declarations+"/"+declaration.DefinitionsFile(name))
	if errors.Is(err, fs.ErrNotExist) {
		return &Plugin{Declaration: d}, nil
	}
	return &Plugin{d, kinds}, err
}

// architectures are systemd's names of them.
var architectures = map[string]string{"amd64": "x86-64", "arm64": "arm64"}

// release checks the file that says what the extension is for.
func (x *Extension) release(files fs.FS, arch string) error {
	file := releases + "/extension-release." + x.Name
	data, err := fs.ReadFile(files, file)
	if err != nil {
		return fmt.Errorf("says not what it is for: %w", err)
	}
	says := map[string]string{}
	for line := range strings.Lines(string(data)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		says[key] = strings.Trim(value, `"'`)
	}
	if id := says["ID"]; id != "cosi" && id != "_any" {
		return fmt.Errorf("/%s: ID=%s; want cosi or _any", file, id)
	}
	if a := says["ARCHITECTURE"]; a != "" && a != "_any" && a != architectures[arch] {
		return fmt.Errorf("/%s: ARCHITECTURE=%s; want %s", file, a, architectures[arch])
	}
	return nil
}
