// Fuzz runs the fuzz tests of this repository, each for a time of the processor, keeps the inputs that it found worth keeping beside
// the tests, and appends to a file what came of it. make fuzz calls it. A failing input is left where go test puts it, and is run by
// every go test from then on.
//
//	go run ./hack/fuzz -match 'FuzzRequests|FuzzSegment' -cpu 10m -record docs/fuzz.md
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"regexp"
	"strings"
	"syscall"
	"time"
)

func main() {
	match := flag.String("match", ".", "`regexp` of the fuzz tests, as PACKAGE.NAME")
	cpu := flag.Duration("cpu", 10*time.Minute, "processor time for each test")
	record := flag.String("record", "docs/fuzz.md", "`file` to append to")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *match, *cpu, *record); err != nil {
		fmt.Fprintln(os.Stderr, "fuzz:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, match string, cpu time.Duration, record string) error {
	wanted, err := regexp.Compile(match)
	if err != nil {
		return fmt.Errorf("-match: %w", err)
	}
	commit, err := output(ctx, "git", "describe", "--always", "--dirty", "--abbrev=12")
	if err != nil {
		return err
	}
	targets, err := findTargets(ctx, wanted)
	if err != nil {
		return err
	}
	if len(targets) == 0 {
		return fmt.Errorf("-match %s: there is no such fuzz test", match)
	}
	var failed error
	for _, t := range targets {
		r, err := t.fuzz(ctx, cpu)
		if ctx.Err() != nil && r.cpu == 0 {
			return ctx.Err()
		}
		if r.kept, r.failure = 0, err; err == nil {
			r.kept, err = t.keep(ctx)
		}
		failed = errors.Join(failed, err, r.append(record, commit))
		if ctx.Err() != nil {
			return errors.Join(failed, ctx.Err())
		}
	}
	return failed
}

// report is what came of one test.
type report struct {
	target  target
	cpu     time.Duration
	inputs  uint64
	kept    int // inputs in the corpus beside the test
	failure error
}

const title = `# Fuzzing

Each line is a fuzz test that ` + "`make fuzz`" + ` ran: for how long on the processor, on how many inputs, and how many of them are kept in
testdata/fuzz beside the test, where every ` + "`go test`" + ` runs them.

| test | commit | CPU | inputs | kept | failures |
|---|---|---|---|---|---|
`

func (r report) append(path, commit string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil {
		return err
	} else if info.Size() == 0 {
		fmt.Fprint(f, title)
	}
	failure := "none"
	if r.failure != nil {
		failure = strings.ReplaceAll(r.failure.Error(), "\n", " ")
	}
	_, err = fmt.Fprintf(f, "| %s | %s | %.1f min | %d | %d | %s |\n", r.target.title(), commit, r.cpu.Minutes(), r.inputs, r.kept, failure)
	return err
}

func output(ctx context.Context, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w", name, args[0], err)
	}
	return strings.TrimSpace(string(out)), nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return !errors.Is(err, fs.ErrNotExist)
}
