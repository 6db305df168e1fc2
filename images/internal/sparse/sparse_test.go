package sparse

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func file(t *testing.T, size int64, data map[int64]string) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "f"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	for at, text := range data {
		if _, err := f.WriteAt([]byte(text), at); err != nil {
			t.Fatal(err)
		}
	}
	return f
}

// Zeros that somebody wrote are as good as a hole, and a last unit need not be whole.
func TestExtents(t *testing.T) {
	zeros := string(make([]byte, 3*grain))
	for _, c := range []struct {
		name string
		size int64
		data map[int64]string
		want []Extent
	}{
		{"empty", 0, nil, nil},
		{"a hole", 10 * grain, nil, nil},
		{"zeros that were written", 10 * grain, map[int64]string{grain: zeros}, nil},
		{"neighbours", 10 * grain, map[int64]string{grain - 1: "ab", 5 * grain: "c"}, []Extent{{0, 2 * grain}, {5 * grain, grain}}},
		{"data at the end", 2*grain + 100, map[int64]string{2*grain + 99: "a"}, []Extent{{2 * grain, 100}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := Extents(file(t, c.size, c.data), c.size)
			if err != nil || !slices.Equal(got, c.want) {
				t.Errorf("Extents = %v, %v; want %v", got, err, c.want)
			}
		})
	}
}
