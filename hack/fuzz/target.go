package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// target is a fuzz test.
type target struct {
	module, pkg, dir string
	name             string
}

// title is the test's name below the module: engine/runtime.FuzzRequests.
func (t target) title() string { return strings.TrimPrefix(t.pkg, t.module+"/") + "." + t.name }

var fuzzTest = regexp.MustCompile(`(?m)^func (Fuzz\w+)\(\w+ \*testing\.F\)`)

// findTargets returns the fuzz tests of the module whose titles match.
func findTargets(ctx context.Context, wanted *regexp.Regexp) ([]target, error) {
	out, err := output(ctx, "go", "list", "-json=ImportPath,Dir,Module,TestGoFiles,XTestGoFiles", "./...")
	if err != nil {
		return nil, err
	}
	var all []target
	for decoder := json.NewDecoder(strings.NewReader(out)); ; {
		var p struct {
			ImportPath, Dir           string
			Module                    struct{ Path string }
			TestGoFiles, XTestGoFiles []string
		}
		if err := decoder.Decode(&p); errors.Is(err, io.EOF) {
			return all, nil
		} else if err != nil {
			return nil, err
		}
		for _, file := range append(p.TestGoFiles, p.XTestGoFiles...) {
			source, err := os.ReadFile(filepath.Join(p.Dir, file))
			if err != nil {
				return nil, err
			}
			for _, m := range fuzzTest.FindAllStringSubmatch(string(source), -1) {
				t := target{module: p.Module.Path, pkg: p.ImportPath, dir: p.Dir, name: m[1]}
				if wanted.MatchString(t.title()) {
					all = append(all, t)
				}
			}
		}
	}
}

// slice is how long go test runs at a time: it takes wall time only, and what it got of the processor is known when it has ended.
const slice = time.Minute

// fuzz runs the test until it has had cpu of the processor, ctx is done or an input fails it.
func (t target) fuzz(ctx context.Context, cpu time.Duration) (report, error) {
	r := report{target: t}
	for r.cpu < cpu && ctx.Err() == nil {
		cmd := exec.CommandContext(ctx, "go", "test", t.pkg, "-run", "^$", "-fuzz", "^"+t.name+"$", "-fuzztime", min(slice, cpu-r.cpu+time.Second).String())
		cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGINT) } // it writes down what it has
		said, err := cmd.StdoutPipe()
		if err != nil {
			return r, err
		}
		cmd.Stderr = os.Stderr
		if err := cmd.Start(); err != nil {
			return r, err
		}
		inputs, failure := follow(said, t.title())
		err = cmd.Wait()
		r.cpu += cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
		r.inputs += inputs
		if err != nil && ctx.Err() == nil && !outOfTime.MatchString(failure) {
			return r, fmt.Errorf("%w: %s", err, failure)
		}
	}
	return r, nil
}

// outOfTime is the failure of a test whose time was over, and of nothing else: go test should have taken it for the end that it is
// (https://go.dev/issue/75804, mended in Go 1.27). An input that fails is named in the third line.
var outOfTime = regexp.MustCompile(`^--- FAIL: \w+ \([0-9.]+s\) context deadline exceeded FAIL( |$)`)

var execs = regexp.MustCompile(`execs: (\d+)`)

// follow shows what go test says, and returns on how many inputs it ran the test and the first lines of how one failed.
func follow(said io.Reader, title string) (inputs uint64, failure string) {
	var wrong []string
	for lines := bufio.NewScanner(said); lines.Scan(); {
		line := lines.Text()
		fmt.Printf("%s: %s\n", title, line)
		if m := execs.FindStringSubmatch(line); m != nil {
			inputs, _ = strconv.ParseUint(m[1], 10, 64)
		} else if len(wrong) < 4 && (len(wrong) > 0 || strings.HasPrefix(line, "--- FAIL")) {
			wrong = append(wrong, strings.TrimSpace(line))
		}
	}
	return inputs, strings.Join(wrong, " ")
}
