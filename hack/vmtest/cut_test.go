package vmtest_test

import (
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cosi-os/cosi/hack/soak/kills"
	"github.com/cosi-os/cosi/hack/vmtest"
)

// buildRuntime builds the one that recovers.
func buildRuntime(t *testing.T) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "runtime")
	gotool(t, "build", "-o", program, "./engine/runtime")
	return program
}

// TestThePowerIsCutAnywhere records all that a node writes to its disk, makes the disk again as a loss of power might have left it, and
// compares. "make soak WHAT=cut" cuts at every flush.
func TestThePowerIsCutAnywhere(t *testing.T) {
	vmtest.Parallel(t, 80)
	m, seed := machine(t), rand.Uint64()
	r, err := m.Record(t.Context(), seed, 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	all := r.Points(seed)
	turn := r.Turn(all)
	points := append(kills.Sample(turn, 150, seed), kills.Sample(all[len(turn):], 150, seed)...)
	begun := time.Now()
	report := r.Cut(t.Context(), buildRuntime(t), seed, points)
	t.Logf("seed %d: %d writes acknowledged, %d of %d points cut in %v", seed, report.Writes, report.Done, len(all), time.Since(begun))
	if report.Done != len(points) || len(points) < 200 {
		t.Errorf("seed %d: %+v; want %d points and nothing wrong", seed, report, len(points))
	}
	if err := r.Boot(t.Context(), seed, points[len(points)-1]); err != nil {
		t.Error(err)
	}
}

// TestALossOfPowerShowsANodeThatDoesNotSync: of a node whose runtime skips a sync, something that was acknowledged is lost.
func TestALossOfPowerShowsANodeThatDoesNotSync(t *testing.T) {
	vmtest.Parallel(t, 100)
	vmtest.Host(t)
	if testing.Short() {
		t.Skip("boots a VM")
	}
	program := buildRuntime(t)
	for _, skipped := range []struct{ name, code, instead string }{
		{"fdatasync", "unix.Fdatasync(int(f.Fd()))", "error(nil)"},
		// The rename is in ext4's journal, and the next fdatasync that has metadata to bring to the disk takes it along. Until then it
		// shows: the first records of a segment lie in the block that the header has allocated already.
		{"fsync of the directory", "return f.Sync()", "return nil"},
	} {
		t.Run(skipped.name, func(t *testing.T) {
			m, err := kills.NewMachine(vmtest.Host(t), buildWithout(t, skipped.code, skipped.instead), t.TempDir(), t.Output())
			if err != nil {
				t.Fatal(err)
			}
			seed := rand.Uint64()
			r, err := m.Record(t.Context(), seed, time.Second)
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			report := r.Cut(t.Context(), program, seed, r.Turn(r.Points(seed)))
			if len(report.Failures) == 0 {
				t.Errorf("seed %d: without the %s nothing was lost at %d points: these tests see nothing", seed, skipped.name, report.Done)
			}
		})
	}
}

// buildWithout builds an image from a copy of this source in which the log does something else instead of what it should, and returns it.
func buildWithout(t *testing.T, code, instead string) string {
	t.Helper()
	root, tree := filepath.Join("..", ".."), t.TempDir()
	for _, name := range strings.Split(strings.TrimRight(gitFiles(t, root), "\x00"), "\x00") {
		data, err := os.ReadFile(filepath.Join(root, name))
		if os.IsNotExist(err) { // removed, and not committed yet
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if name == "engine/runtime/state/log/disk.go" {
			if n := strings.Count(string(data), code); n != 1 {
				t.Fatalf("%s has %q %d times; want once", name, code, n)
			}
			data = []byte(strings.Replace(string(data), code, instead, 1))
		}
		writeFile(t, filepath.Join(tree, name), string(data))
	}
	writeFile(t, filepath.Join(tree, "images", "skips.yaml"), "name: skips\nextends: base.yaml\noutputs: [raw]\n")
	gotool(t, "run", "./tools/cosi-image", "build", "-o", tree, filepath.Join(tree, "images", "skips.yaml"))
	return filepath.Join(tree, "cosi-skips-amd64.raw")
}

func gitFiles(t *testing.T, root string) string {
	t.Helper()
	out, err := exec.Command("git", "-C", root, "ls-files", "-z").Output()
	if err != nil {
		t.Fatalf("git ls-files: %v", err)
	}
	return string(out)
}

func writeFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}
