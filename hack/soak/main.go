// Soak kills a runtime a thousand times under load and appends to a file what came of it: which commit, how many rounds, what was wrong.
// It goes on where it was interrupted.
//
//	go run ./hack/soak -program build/bin/runtime -rounds 1000 -seed 1 -for 20m -record docs/soak.md
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/cosi-os/cosi/hack/soak/kills"
)

func main() {
	program := flag.String("program", "build/bin/runtime", "the `runtime` to kill")
	rounds := flag.Int("rounds", 1000, "how often")
	seed := flag.Uint64("seed", 1, "of the moments and the writes")
	limit := flag.Duration("for", 20*time.Minute, "stop after that long, to go on the next time")
	progress := flag.String("progress", "build/soak.json", "`file` that says where to go on")
	record := flag.String("record", "docs/soak.md", "`file` to append to")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, *limit)
	defer cancel()
	if err := run(ctx, *program, *rounds, *seed, *progress, *record); err != nil {
		fmt.Fprintln(os.Stderr, "soak:", err)
		os.Exit(1)
	}
}

// state is where a soak stands, for one commit, seed and number of rounds.
type state struct {
	Commit   string
	Seed     uint64
	Rounds   int
	Done     int
	Writes   int
	Events   int
	Failures []string
}

func run(ctx context.Context, program string, rounds int, seed uint64, progress, record string) error {
	commit, err := commit()
	if err != nil {
		return err
	}
	s, err := load(progress, state{Commit: commit, Seed: seed, Rounds: rounds})
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "soak")
	if err != nil {
		return err
	}
	fmt.Printf("commit %s, seed %d: %d of %d rounds are done\n", s.Commit, s.Seed, s.Done, s.Rounds)
	c := kills.Runtime{Program: program, Dir: dir, Log: os.Stderr}.Config()
	c.Seed, c.First, c.Rounds = seed, s.Done, rounds-s.Done
	report := kills.Run(ctx, c)
	s.Done += report.Done
	s.Writes += report.Writes
	s.Events += report.Events
	s.Failures = append(s.Failures, report.Failures...)
	fmt.Printf("%d of %d rounds are done, %d failures\n", s.Done, s.Rounds, len(s.Failures))
	if err := errors.Join(s.save(progress), s.append(record)); err != nil {
		return err
	}
	if len(report.Failures) > 0 {
		return fmt.Errorf("%s\nwhat is left of it is in %s", strings.Join(report.Failures, "\n"), dir)
	}
	return os.RemoveAll(dir)
}

// commit names what is tested, and whether it is exactly that.
func commit() (string, error) {
	out, err := exec.Command("git", "describe", "--always", "--dirty", "--abbrev=12").Output()
	if err != nil {
		return "", fmt.Errorf("git describe: %w", err)
	}
	return strings.TrimSpace(string(out)), nil
}

// load returns where the soak that fresh begins was interrupted, or fresh.
func load(path string, fresh state) (state, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return fresh, nil
	}
	if err != nil {
		return fresh, err
	}
	var s state
	if err := json.Unmarshal(data, &s); err != nil {
		return fresh, fmt.Errorf("%s: %w", path, err)
	}
	if s.Commit != fresh.Commit || s.Seed != fresh.Seed || s.Rounds != fresh.Rounds || s.Done >= s.Rounds || len(s.Failures) > 0 {
		return fresh, nil
	}
	return s, nil
}

func (s state) save(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	data, err := json.MarshalIndent(s, "", "\t")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(data, '\n'), 0o644)
}

const title = `# Soak

Each line is a run of ` + "`make soak`" + `: a runtime that was killed with SIGKILL in the middle of writes and watches, and compared with what it had
acknowledged. A run that was interrupted has a line for each part, which counts the parts before it.

| commit | seed | rounds | writes acknowledged | events seen | failures |
|---|---|---|---|---|---|
`

func (s state) append(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil {
		return err
	} else if info.Size() == 0 {
		fmt.Fprint(f, title)
	}
	failures := "none"
	if len(s.Failures) > 0 {
		failures = strings.Join(s.Failures, "; ")
	}
	_, err = fmt.Fprintf(f, "| %s | %d | %d of %d | %d | %d | %s |\n", s.Commit, s.Seed, s.Done, s.Rounds, s.Writes, s.Events, failures)
	return err
}
