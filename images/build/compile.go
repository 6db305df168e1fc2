package build

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"time"

	"github.com/cosi-os/cosi/images/plan"
)

// kept is how many sets of programs the cache holds: a few branches' worth.
const kept = 6

// arguments of the go command, and its environment for an architecture.
var arguments = []string{"build", "-trimpath", "-buildvcs=false", "-tags", "grpcnotrace", "-ldflags", "-s -w -buildid="}

func environment(arch string) []string {
	return []string{"CGO_ENABLED=0", "GOOS=linux", "GOARCH=" + arch, "GOAMD64=v1", "GOARM64=v8.0", "GOFLAGS=", "GOEXPERIMENT=", "GOWORK=off", "GOFIPS140=off"}
}

// programs is where the cache has, or will have, the plan's programs, by their paths in the root. The key of their directory is what goes into
// them, and only that; the version does not, so that a commit alone changes no program.
func programs(o Options, p *plan.Plan, in *Inputs) (dir string, all map[string]string) {
	dir = filepath.Join(o.Cache, "programs", digest(in.sources, p.Programs, arguments, environment(p.Definition.Arch)))
	all = map[string]string{}
	for _, program := range p.Programs {
		all[program.Path] = filepath.Join(dir, path.Base(program.Path))
	}
	return dir, all
}

// compile builds the plan's programs, or finds them in the cache: the go command would link them again each time.
func compile(ctx context.Context, o Options, p *plan.Plan, in *Inputs) (all map[string]string, cached bool, err error) {
	dir, all := programs(o, p, in)
	sets := filepath.Dir(dir)
	now := time.Now()
	if os.Chtimes(dir, now, now) == nil {
		return all, true, nil
	}
	if err := os.MkdirAll(sets, 0o755); err != nil {
		return nil, false, err
	}
	work, err := os.MkdirTemp(sets, ".work-")
	if err != nil {
		return nil, false, err
	}
	defer os.RemoveAll(work)
	for _, command := range commands(p.Programs, work) {
		cmd := exec.CommandContext(ctx, "go", slices.Concat(arguments, command)...)
		cmd.Dir, cmd.Env = o.Tree, append(os.Environ(), environment(p.Definition.Arch)...)
		if output, err := cmd.CombinedOutput(); err != nil {
			return nil, false, fmt.Errorf("go build: %w\n%s", err, bytes.TrimSpace(output))
		}
	}
	// Somebody else may have been quicker with the same programs.
	if err := os.Rename(work, dir); err != nil && !os.IsExist(err) {
		return nil, false, err
	}
	return all, false, prune(sets)
}

// commands are the arguments of go build that put programs into dir. One command builds all those that are named for their package: the
// go command does that in parallel.
func commands(programs []plan.Program, dir string) [][]string {
	together := []string{"-o", dir + "/"}
	var all [][]string
	for _, program := range programs {
		if path.Base(program.Package) == path.Base(program.Path) {
			together = append(together, program.Package)
		} else {
			all = append(all, []string{"-o", filepath.Join(dir, path.Base(program.Path)), program.Package})
		}
	}
	return append(all, together)
}

func compiledNote(cached bool) string {
	if cached {
		return "unchanged"
	}
	return "compiled"
}

// prune removes the sets that were not used for longest.
func prune(sets string) error {
	entries, err := os.ReadDir(sets)
	if err != nil {
		return err
	}
	type set struct {
		path string
		used time.Time
	}
	var all []set
	for _, entry := range entries {
		if info, err := entry.Info(); err == nil {
			all = append(all, set{filepath.Join(sets, entry.Name()), info.ModTime()})
		}
	}
	slices.SortFunc(all, func(a, b set) int { return cmp.Compare(b.used.UnixNano(), a.used.UnixNano()) })
	for _, old := range all[min(kept, len(all)):] {
		if err := os.RemoveAll(old.path); err != nil {
			return err
		}
	}
	return nil
}
