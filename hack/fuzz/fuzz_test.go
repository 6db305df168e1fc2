package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// example makes a module of its own with one fuzz test, which fails if broken.
func example(t *testing.T, broken string) {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{
		"go.mod": "module example.org/m\n\ngo 1.26\n",
		"p/p_test.go": `package p

import "testing"

func FuzzIt(f *testing.F) {
	f.Add("seed")
	f.Fuzz(func(t *testing.T, s string) {
		if len(s) > 2 && s[0] == 'x' && ` + broken + ` {
			t.Fatal("an x")
		}
	})
}
`,
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Chdir(dir)
}

func only(t *testing.T) target {
	t.Helper()
	all, err := findTargets(t.Context(), regexp.MustCompile("FuzzIt"))
	if err != nil || len(all) != 1 || all[0].title() != "p.FuzzIt" {
		t.Fatalf("findTargets = %v, %v; want p.FuzzIt", all, err)
	}
	return all[0]
}

func TestWhatIsFoundIsKept(t *testing.T) {
	example(t, "false")
	it := only(t)
	r, err := it.fuzz(t.Context(), time.Second)
	if err != nil || r.cpu < time.Second || r.inputs == 0 {
		t.Fatalf("fuzz = %+v, %v; want a second of the processor and no failure", r, err)
	}
	kept, err := it.keep(t.Context())
	if err != nil || kept == 0 {
		t.Fatalf("keep = %d, %v; want some inputs: the test has a branch", kept, err)
	}
	again, err := it.keep(t.Context())
	if files, _ := os.ReadDir(filepath.Join(it.dir, "testdata", "fuzz", "FuzzIt")); err != nil || again != kept || len(files) != kept {
		t.Errorf("kept again: %d, %v, %d files; want %d", again, err, len(files), kept)
	}
}

func TestAFailureIsReported(t *testing.T) {
	example(t, "true")
	it := only(t)
	r, err := it.fuzz(t.Context(), time.Minute)
	if err == nil || !strings.Contains(err.Error(), "an x") {
		t.Fatalf("fuzz = %+v, %v; want how it failed", r, err)
	}
	r.failure = err
	record := filepath.Join(t.TempDir(), "fuzz.md")
	for range 2 {
		if err := r.append(record, "abc"); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(record)
	if err != nil || strings.Count(string(text), "# Fuzzing") != 1 || strings.Count(string(text), "| p.FuzzIt | abc | ") != 2 || !strings.Contains(string(text), "an x") {
		t.Errorf("the record is %q, %v", text, err)
	}
}

func TestTheEndOfTheTimeIsNoFailure(t *testing.T) {
	for failure, want := range map[string]bool{
		"--- FAIL: FuzzSnapshot (61.06s) context deadline exceeded FAIL exit status 1":                              true,
		"--- FAIL: FuzzSnapshot (0.06s) --- FAIL: FuzzSnapshot (0.00s) p_test.go:9: context deadline exceeded FAIL": false,
		"--- FAIL: FuzzSnapshot (61.06s) context deadline exceeded Failing input written to testdata/fuzz/a":        false,
		"": false,
	} {
		if got := outOfTime.MatchString(failure); got != want {
			t.Errorf("%q: %v; want %v", failure, got, want)
		}
	}
}
