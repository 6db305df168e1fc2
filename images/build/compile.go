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
		programs[program.Path] = filepath.Join(dir, path.Base(program.Package))
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
	arguments = append(arguments, "-o", work+"/")
	for _, program := range p.Programs {
		arguments = append(arguments, program.Package)
	}
	cmd := exec.CommandContext(ctx, "go", arguments...)
	cmd.Dir, cmd.Env = o.Tree, append(os.Environ(), environment...)
	output := &bytes.Buffer{}
	cmd.Stdout, cmd.Stderr = output, output
	if err := cmd.Run(); err != nil {
		return nil, false, fmt.Errorf("go build: %w\n%s", err, bytes.TrimSpace(output.Bytes()))
	}
	// Somebody else may have been quicker with the same programs.
	if err := os.Rename(work, dir); err != nil && !os.IsExist(err) {
		return nil, false, err
	}
	return programs, false, prune(sets)
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
