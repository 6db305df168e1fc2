package gauge

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What is not refused is named. That everything is refused is seen on a node.
func TestAChangeOfTheRootIsNamed(t *testing.T) {
	root := t.TempDir()
	if err := os.MkdirAll(filepath.Join(root, "usr/lib"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "usr/lib/os-release"), []byte("NAME=COSI"), 0o644); err != nil {
		t.Fatal(err)
	}
	err := changeRoot(root)
	if err == nil {
		t.Fatal("everything was refused")
	}
	for _, want := range []string{"create a file: <nil>, not read-only", "truncate: <nil>", "remove: ", "remounted: create a file: <nil>"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%v; want %q", err, want)
		}
	}
}
