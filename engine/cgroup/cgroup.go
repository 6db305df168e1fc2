// Package cgroup makes the control groups of the node: /cosi/runtime, and /cosi/plugins/NAME for each plugin. PID 1 calls it, and
// itself stays in the root group, which may hold processes beside groups.
package cgroup

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// controllers that the groups of processes get, as far as the kernel has them.
var controllers = []string{"cpu", "memory", "pids", "io"}

// Tree is a tree below a mounted cgroup2 file system.
type Tree struct{ root string }

// New makes /cosi and /cosi/plugins below the mount point, with all controllers handed down.
func New(mount string) (*Tree, error) {
	t := &Tree{root: filepath.Join(mount, "cosi")}
	for _, dir := range []string{mount, t.root, filepath.Join(t.root, "plugins")} {
		if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, err
		}
		if err := handDown(dir); err != nil {
			return nil, err
		}
	}
	return t, nil
}

// Runtime makes the runtime's group and returns its directory.
func (t *Tree) Runtime() (string, error) { return t.group("runtime") }

// Plugin makes a plugin's group and returns its directory.
func (t *Tree) Plugin(name string) (string, error) { return t.group(filepath.Join("plugins", name)) }

func (t *Tree) group(path string) (string, error) {
	dir := filepath.Join(t.root, path)
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", err
	}
	return dir, nil
}

// handDown gives the groups below dir the controllers that dir has.
func handDown(dir string) error {
	has, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	if err != nil {
		return err
	}
	var wanted []string
	for _, c := range controllers {
		if strings.Contains(" "+strings.TrimSpace(string(has))+" ", " "+c+" ") {
			wanted = append(wanted, "+"+c)
		}
	}
	if len(wanted) == 0 {
		return nil
	}
	return os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte(strings.Join(wanted, " ")), 0)
}
