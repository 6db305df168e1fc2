package rootfs

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cosi-os/cosi/images/content"
	"github.com/cosi-os/cosi/images/internal/judge"
)

var testTime = time.Unix(1_760_000_000, 0)

func testEntries() []Entry {
	return []Entry{
		{Path: "usr/bin/engine", Mode: 0o755, Content: content.String(strings.Repeat("engine ", 5000))},
		{Path: "usr/lib/os-release", Mode: 0o644, Content: content.String("ID=cosi\n")},
		{Path: "etc", Mode: fs.ModeDir | 0o755},
		{Path: "etc/os-release", Mode: fs.ModeSymlink | 0o777, Target: "../usr/lib/os-release"},
		{Path: "run", Mode: fs.ModeDir | 0o700},
		{Path: "usr/lib/empty", Mode: 0o600},
	}
}

func written(t testing.TB, entries []Entry) string {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "root.erofs"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := Write(f, entries, testTime); err != nil {
		t.Fatal(err)
	}
	return f.Name()
}

func TestWriteReadsBack(t *testing.T) {
	name := written(t, testEntries())
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	root, err := Open(f)
	if err != nil {
		t.Fatal(err)
	}
	var paths []string
	err = fs.WalkDir(root, ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		paths = append(paths, p)
		info, err := d.Info()
		if err == nil && !info.ModTime().Equal(testTime) {
			t.Errorf("%s is dated %v; want %v", p, info.ModTime(), testTime)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{".", "etc", "etc/os-release", "run", "usr", "usr/bin", "usr/bin/engine", "usr/lib", "usr/lib/empty", "usr/lib/os-release"}
	if !slices.Equal(paths, want) {
		t.Errorf("the root holds %q; want %q", paths, want)
	}
	for _, e := range testEntries() {
		info, err := fs.Lstat(root, e.Path)
		if err != nil || info.Mode().String() != e.Mode.String() {
			t.Errorf("%s has mode %v, %v; want %v", e.Path, info.Mode(), err, e.Mode)
		}
	}
	if got, err := fs.ReadFile(root, "usr/bin/engine"); err != nil || string(got) != strings.Repeat("engine ", 5000) {
		t.Errorf("usr/bin/engine reads %d bytes, %v", len(got), err)
	}
}

func TestJudgesAreContent(t *testing.T) {
	name := written(t, testEntries())
	judge.Run(t, "fsck.erofs", "--extract", name)
	if out := judge.Run(t, "dump.erofs", "--path=/usr/bin/engine", name); !strings.Contains(out, "Uid: 0   Gid: 0") {
		t.Errorf("dump.erofs: %s", out)
	}
}

func TestOrderOfEntriesDoesNotMatter(t *testing.T) {
	entries := testEntries()
	a, err := os.ReadFile(written(t, entries))
	if err != nil {
		t.Fatal(err)
	}
	slices.Reverse(entries)
	b, err := os.ReadFile(written(t, entries))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(a, b) {
		t.Error("two images of the same entries differ")
	}
}

func TestWriteRefuses(t *testing.T) {
	for _, tc := range []struct {
		want    string
		entries []Entry
	}{
		{`"/init": not a clean`, []Entry{{Path: "/init"}}},
		{`"a/../b": not a clean`, []Entry{{Path: "a/../b"}}},
		{`"a": listed twice`, []Entry{{Path: "a"}, {Path: "a"}}},
		{`"a/b": "a" is not a directory`, []Entry{{Path: "a/b"}, {Path: "a"}}},
		{`only files, directories`, []Entry{{Path: "su", Mode: fs.ModeSetuid | 0o755}}},
		{`only files, directories`, []Entry{{Path: "null", Mode: fs.ModeDevice | 0o600}}},
		{`has a target`, []Entry{{Path: "a", Mode: fs.ModeSymlink}}},
		{`only files have content`, []Entry{{Path: "a", Mode: fs.ModeDir, Content: content.String("x")}}},
	} {
		f, err := os.Create(filepath.Join(t.TempDir(), "root.erofs"))
		if err != nil {
			t.Fatal(err)
		}
		if err := Write(f, tc.entries, testTime); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("Write(%+v) = %v; want an error with %q", tc.entries, err, tc.want)
		}
		f.Close()
	}
}
