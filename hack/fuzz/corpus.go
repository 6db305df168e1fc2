package main

import (
	"cmp"
	"context"
	"os"
	"path/filepath"
	"slices"
)

// The bounds of a corpus beside a test: what is large costs every checkout, and each input every go test.
const (
	mostInputs = 100
	mostBytes  = 4 << 10 // of one
)

// keep copies the smallest of the inputs that go test's cache holds of the test to testdata/fuzz beside it, as far as there is room,
// and returns how many are there.
func (t target) keep(ctx context.Context) (int, error) {
	cache, err := output(ctx, "go", "env", "GOCACHE")
	if err != nil {
		return 0, err
	}
	dir := filepath.Join(t.dir, "testdata", "fuzz", t.name)
	kept, err := os.ReadDir(dir)
	if err != nil && exists(dir) {
		return 0, err
	}
	found, err := inputs(filepath.Join(cache, "fuzz", t.pkg, t.name))
	if err != nil {
		return 0, err
	}
	count := len(kept)
	for _, in := range found {
		to := filepath.Join(dir, filepath.Base(in.path))
		if count >= mostInputs || in.size > mostBytes {
			break
		}
		if exists(to) {
			continue
		}
		if err := copyFile(in.path, to); err != nil {
			return count, err
		}
		count++
	}
	return count, nil
}

type input struct {
	path string
	size int64
}

// inputs returns the files of dir, the smallest first. There may be no dir.
func inputs(dir string) ([]input, error) {
	if !exists(dir) {
		return nil, nil
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var all []input
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			return nil, err
		}
		all = append(all, input{filepath.Join(dir, e.Name()), info.Size()})
	}
	slices.SortFunc(all, func(a, b input) int { return cmp.Or(cmp.Compare(a.size, b.size), cmp.Compare(a.path, b.path)) })
	return all, nil
}

func copyFile(from, to string) error {
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	return os.WriteFile(to, data, 0o644)
}
