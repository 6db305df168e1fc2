package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestASoakGoesOnOnlyWhereItIsTheSame(t *testing.T) {
	path := filepath.Join(t.TempDir(), "dir", "soak.json")
	was := state{Commit: "a", Seed: 1, Rounds: 10, Done: 4, Writes: 7}
	if err := was.save(path); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		fresh state
		done  int
	}{
		{state{Commit: "a", Seed: 1, Rounds: 10}, 4},
		{state{Commit: "b", Seed: 1, Rounds: 10}, 0},
		{state{What: "plug", Commit: "a", Seed: 1, Rounds: 10}, 0},
		{state{Commit: "a", Seed: 2, Rounds: 10}, 0},
		{state{Commit: "a", Seed: 1, Rounds: 20}, 0},
	} {
		if got, err := load(path, c.fresh); err != nil || got.Done != c.done {
			t.Errorf("%+v goes on after %d rounds (%v); want %d", c.fresh, got.Done, err, c.done)
		}
	}
}

func TestEveryRunHasALine(t *testing.T) {
	path := filepath.Join(t.TempDir(), "docs", "soak.md")
	for _, s := range []state{{What: "plug", Commit: "a", Seed: 3, Rounds: 10, Done: 4}, {What: "plug", Commit: "a", Seed: 3, Rounds: 10, Done: 9, Failures: []string{"lost"}}} {
		if err := s.append(path); err != nil {
			t.Fatal(err)
		}
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	want := title + "| plug | a | 3 | 4 of 10 | 0 | 0 | none |\n| plug | a | 3 | 9 of 10 | 0 | 0 | lost |\n"
	if got := string(data); got != want || strings.Count(got, "# Soak") != 1 {
		t.Errorf("the record is\n%s\nwant\n%s", got, want)
	}
}
