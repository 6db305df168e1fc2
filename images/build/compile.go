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

// compile builds the plan's programs, or finds them in the cache: the go command would link them again each time. The key is what goes
// into them, and only that; the version does not, so that a commit alone changes no program.
func compile(ctx context.Context, o Options, p *plan.Plan, in *Inputs) (programs map[string]string, cached bool, err error) {
	arguments := []string{"build", "-trimpath", "-buildvcs=false", "-tags", "grpcnotrace", "-ldflags", "-s -w -buildid="}
	environment := []string{"CGO_ENABLED=0", "GOOS=linux", "GOARCH=" + p.Definition.Arch, "GOAMD64=v1", "GOARM64=v8.0", "GOFLAGS=", "GOEXPERIMENT=", "GOWORK=off", "GOFIPS140=off"}
	sets := filepath.Join(o.Cache, "programs")
	dir := filepath.Join(sets, digest(in.sources, p.Programs, arguments, environment))
	programs = map[string]string{}
	for _, program := range p.Programs {
		programs[program.Path] = filepath.Join(dir, path.Base(program.Path))
	}
	now := time.Now()
	if os.Chtimes(dir, now, now) == nil {
		return programs, true, nil
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
		cmd.Dir, cmd.Env = o.Tree, append(os.Environ(), environment...)
		if output, err := cmd.CombinedOutput(); err != nil {
			return nil, false, fmt.Errorf("go build: %w\n%s", err, bytes.TrimSpace(output))
		}
	}
	// Somebody else may have been quicker with the same programs.
	if err := os.Rename(work, dir); err != nil && !os.IsExist(err) {
		return nil, false, err
	}
	return programs, false, prune(sets)
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
