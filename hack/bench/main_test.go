package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	testpb "github.com/cosi-os/cosi/api/cosi/test/v1alpha1"
)

func TestFigureIsShownBesideItsTarget(t *testing.T) {
	for _, test := range []struct {
		figure figure
		want   string
	}{
		{figure{"image", 0.994, "s", 1}, "image\t0.99 s\t≤ 1 s\tmet"},
		{figure{"image", 1, "s", 1}, "image\t1.00 s\t≤ 1 s\tmet"},
		{figure{"image", 1.004, "s", 1}, "image\t1.00 s\t≤ 1 s\tmissed"},
		{figure{"part", 7, "MiB", 0}, "part\t7.00 MiB\t\t"},
	} {
		if got := test.figure.String(); got != test.want {
			t.Errorf("%q; want %q", got, test.want)
		}
	}
}

func TestGroupsAreChosenByName(t *testing.T) {
	all, err := choose(nil)
	if err != nil || len(all) != len(groups) {
		t.Errorf("without names: %d of %d groups, %v", len(all), len(groups), err)
	}
	if slices.ContainsFunc(all, func(g group) bool { return strings.HasSuffix(g.name, "-own") }) {
		t.Error("without names, our own kernel would be built")
	}
	some, err := choose([]string{"boot", "size", "boot-own"})
	if err != nil || len(some) != 3 || some[0].name != "boot" || some[1].name != "size" || some[2].name != "boot-own" {
		t.Errorf("boot, size, boot-own: %v, %v", some, err)
	}
	if _, err := choose([]string{"size", "weight"}); err == nil || !strings.Contains(err.Error(), `"weight" is none of size, build`) {
		t.Errorf("size, weight: %v; want an error that names the groups", err)
	}
}

func TestWakeUpsAreThoseOfAMinute(t *testing.T) {
	got := processes(&testpb.GaugeRequestStatus{Watched: 240, Processes: []*testpb.GaugeRequestStatus_Process{
		{Name: "engine", PrivateDirty: 6 << 20, Awake: []float64{10, 130.2}, Wakeups: 100},
		{Name: "gauge", PrivateDirty: 9 << 20, Awake: []float64{1, 2, 3}},
		{Name: "power", Awake: []float64{7}},
		{Name: "mount", PrivateDirty: 3 << 20, Awake: []float64{0.9, 61.1, 121, 181.3}, Wakeups: 4000},
	}})
	want := []figure{
		{"engine, memory of its own", 6, "MiB", 0},
		{"engine, wake-ups a minute, one a second at most", 0.5, "", 0},
		{"engine, wake-ups of its threads a minute", 25, "", 0},
		{"power, memory of its own", 0, "MiB", 5},
		{"power, wake-ups a minute, one a second at most", 0.25, "", 1},
		{"power, wake-ups of its threads a minute", 0, "", 0},
		{"mount, memory of its own", 3, "MiB", 5},
		{"mount, wake-ups a minute, one a second at most", 1, "", 1},
		{"mount, wake-ups of its threads a minute", 1000, "", 0},
	}
	if !slices.Equal(got, want) {
		t.Errorf("figures %v; want %v", got, want)
	}
}

// What is timed in a copy of the tree finds the packages, and no program that somebody compiled.
func TestCopyOfTheTreeHoldsPackagesAndNoPrograms(t *testing.T) {
	t.Chdir("../..")
	cache := t.TempDir()
	t.Setenv("COSI_CACHE", cache)
	for _, file := range []string{"packages/0123/boot/vmlinuz", "programs/4567/engine"} {
		if err := os.MkdirAll(filepath.Join(cache, filepath.Dir(file)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(cache, file), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	c, err := copyTree(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer c.remove()
	if err := c.run(t.Context(), "sh", "-ec", `test -e go.mod; test -e `+plugin+`; test -z "$(git status --porcelain)"
test -e "$COSI_CACHE/packages/0123/boot/vmlinuz"; test ! -e "$COSI_CACHE/programs"; test "$COSI_CACHE" != `+cache); err != nil {
		t.Error(err)
	}
	c.remove()
	if _, err := os.Stat(c.dir); !os.IsNotExist(err) {
		t.Errorf("after remove: %v", err)
	}
}

func TestPressesAreShownByTheirMedianAndTheLongest(t *testing.T) {
	var all []press
	for _, n := range []time.Duration{3, 1, 9, 2, 4} {
		all = append(all, press{written: n * time.Millisecond, answered: 2 * n * time.Millisecond, came: 10 * n * time.Millisecond})
	}
	want := []float64{3, 9, 6, 18, 30, 90}
	got := pressFigures(all)
	if !slices.EqualFunc(got, want, func(f figure, measured float64) bool { return f.measured == measured }) || !strings.HasSuffix(got[0].name, ", median of 5") {
		t.Errorf("figures %v; want %v", got, want)
	}
}

func TestSharesAreOfASecond(t *testing.T) {
	measured := func(generator, runtime, others uint64) *testpb.GaugeRequestStatus {
		return &testpb.GaugeRequestStatus{Processes: []*testpb.GaugeRequestStatus_Process{
			{Name: "runtime", CpuMicroseconds: runtime}, {Name: "block-events", CpuMicroseconds: generator}, {Name: "mount", CpuMicroseconds: others},
		}}
	}
	got := shares(measured(100, 2000, 5), measured(500100, 3002000, 9000005), "block-events", "block events", 50000)
	want := []figure{
		{"runtime, for 10,000 block events a second", 60, "% of 1 GHz", 0}, {"block-events, for 10,000 block events a second", 10, "% of 1 GHz", 20},
	}
	if !slices.Equal(got, want) {
		t.Errorf("shares = %v; want %v", got, want)
	}
}
