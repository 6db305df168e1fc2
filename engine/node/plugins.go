package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/cosi-os/cosi/api/declaration"
	"github.com/cosi-os/cosi/engine/supervisor"
	"github.com/cosi-os/cosi/engine/wire"
)

// RuntimeName is the runtime among the processes.
const RuntimeName = "runtime"

// runtimeUID is the runtime's user on a machine.
const runtimeUID = 900

// reserved names are processes, or rings of output, that are no plugin's.
var reserved = []string{RuntimeName, "engine", "kernel"}

// Declaration returns what a process below root may do: a plugin's from its file, the runtime's is built in. The runtime has no
// capability and no class of system calls. Off a machine it keeps the user of the engine.
func Declaration(root, name string) (*declaration.Declaration, error) {
	if name != RuntimeName {
		return readDeclaration(filepath.Join(root, declaration.Dir, name+".json"))
	}
	d := &declaration.Declaration{Name: RuntimeName, Argv: []string{"/usr/bin/runtime"}, NoLandlock: true}
	if filepath.Clean(root) == "/" {
		d.UID, d.GID = runtimeUID, runtimeUID
	}
	return d, nil
}

var errNoPlugins = errors.New("there is no plugin")

func readDeclaration(file string) (*declaration.Declaration, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	d, err := declaration.Parse(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	switch {
	case filepath.Base(file) != d.Name+".json":
		return nil, fmt.Errorf("%s: name: is %q", file, d.Name)
	case slices.Contains(reserved, d.Name):
		return nil, fmt.Errorf("%s: name: %q is not for plugins", file, d.Name)
	}
	return d, nil
}

// declarations reads those of all plugins. One that is broken does not cost the others.
func declarations(root string) (all []*declaration.Declaration, problems []error) {
	files, _ := filepath.Glob(filepath.Join(root, declaration.Dir, "*.json"))
	for _, file := range files {
		d, err := readDeclaration(file)
		if err != nil {
			problems = append(problems, err)
			continue
		}
		all = append(all, d)
	}
	return all, problems
}

// runtimeSpec is how the runtime is started: with the sockets, and a new conversation each time.
func (n *Node) runtimeSpec(ctx context.Context, sockets []socket) (supervisor.Spec, error) {
	spec := supervisor.Spec{Name: RuntimeName, Env: n.environment(), Dir: "/", Launched: true,
		Argv: n.launch(RuntimeName, len(sockets)+1, nil)}
	if n.groups != nil {
		group, err := n.groups.Runtime()
		if err != nil {
			return spec, err
		}
		spec.Cgroup, spec.Confine = group, n.confine(RuntimeName)
	}
	var last *link
	spec.Prepare = func() ([]*os.File, []string, func(), error) {
		if last != nil {
			<-last.done // of the run that has ended
		}
		l, theirs, err := n.newLink(ctx)
		if err != nil {
			return nil, nil, nil, err
		}
		last = l
		files, names := []*os.File{theirs}, []string{wire.FDEngine + "=4"} // 3 is the launcher's
		for i, s := range sockets {
			files = append(files, s.file)
			names = append(names, s.name+"="+strconv.Itoa(5+i))
		}
		return files, []string{wire.EnvDescriptors + "=" + strings.Join(names, ",")}, func() { theirs.Close() }, nil
	}
	return spec, nil
}

// pluginSpec is how a plugin is started. What it may write below /run/cosi is made for it.
func (n *Node) pluginSpec(d *declaration.Declaration) (supervisor.Spec, error) {
	spec := supervisor.Spec{Name: d.Name, Dir: "/", Launched: true, Argv: n.launch(d.Name, 0, n.access.Groups(d.Name))}
	if d.AfterAPI {
		spec.After = n.listens
	}
	spec.Env = append(n.environment(), wire.EnvEndpoint+"=unix://"+n.endpoint(d.Name), wire.EnvName+"="+d.Name)
	if n.Machine {
		if err := ownDirectories(d); err != nil {
			return spec, err
		}
	}
	if n.groups != nil {
		group, err := n.groups.Plugin(d.Name)
		if err != nil {
			return spec, err
		}
		spec.Cgroup, spec.Confine = group, n.confine(d.Name)
	}
	return spec, nil
}

// confine puts the device filter of a process on its control group. A kernel that refuses leaves it the modes of the nodes.
func (n *Node) confine(name string) func(*os.File) {
	return func(group *os.File) {
		if err := n.access.Attach(name, group); err != nil {
			n.complain(err)
		}
	}
}

func ownDirectories(d *declaration.Declaration) error {
	uid, gid := owner(d)
	for _, p := range d.Paths {
		if !p.Write || !strings.HasPrefix(p.Path, "/run/cosi/") {
			continue
		}
		err := os.MkdirAll(p.Path, 0o755)
		if err == nil && uid >= 0 {
			err = os.Chown(p.Path, uid, gid)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// environment of every process. Off a machine they inherit that of the engine, for what a developer sets there.
func (n *Node) environment() []string {
	if n.Machine {
		return []string{"PATH=/usr/bin", "HOME=/"}
	}
	return append(os.Environ(), wire.EnvRoot+"="+n.Root)
}

// launch is the command line that confines a process and executes it.
func (n *Node) launch(name string, keep int, groups []uint32) []string {
	argv := []string{n.Engine, "launch", "-root", n.Root, "-keep", strconv.Itoa(keep)}
	for _, group := range groups {
		argv = append(argv, "-group", strconv.FormatUint(uint64(group), 10))
	}
	return append(argv, name)
}
