package kills_test

import (
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cosi-os/cosi/hack/soak/kills"
)

// runtime returns one that was just built, and rounds for it.
func runtime(t *testing.T, rounds int) (kills.Runtime, kills.Config) {
	t.Helper()
	program := filepath.Join(t.TempDir(), "runtime")
	if out, err := exec.Command("go", "build", "-o", program, "../../../engine/runtime").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	dir, err := os.MkdirTemp("", "kills") // t.TempDir is too long a name for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	r := kills.Runtime{Program: program, Dir: dir, Log: t.Output()}
	c := r.Config()
	c.Seed, c.Rounds = rand.Uint64(), rounds
	return r, c
}

func TestWhatWasAcknowledgedSurvivesKills(t *testing.T) {
	_, c := runtime(t, 10)
	report := kills.Run(t.Context(), c)
	t.Logf("seed %d: %d rounds, %d writes acknowledged, %d unknown, %d events", c.Seed, report.Done, report.Writes, report.Unknown, report.Events)
	if report.Done != c.Rounds || report.Writes == 0 || report.Events == 0 {
		t.Errorf("%+v; want %d rounds with writes and events, and nothing wrong", report, c.Rounds)
	}
}

func TestARuntimeThatLosesSomethingIsFound(t *testing.T) {
	for name, spoil := range map[string]func(string) error{
		"the end of the log":   cutLastQuarter,
		"the whole of its log": os.RemoveAll,
	} {
		r, c := runtime(t, 20)
		c.Spoil = func() error { return spoil(r.Data()) }
		if report := kills.Run(t.Context(), c); len(report.Failures) == 0 {
			t.Errorf("seed %d: without %s, %+v; want a failure", c.Seed, name, report)
		}
	}
}

// cutLastQuarter shortens the newest segment: the last quarter of what was written, room that was never used aside.
func cutLastQuarter(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	newest := ""
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), ".log") {
			newest = filepath.Join(dir, e.Name())
		}
	}
	data, err := os.ReadFile(newest)
	if err != nil {
		return err
	}
	return os.Truncate(newest, int64(len(strings.TrimRight(string(data), "\x00"))*3/4))
}
