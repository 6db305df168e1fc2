package fat_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cosi-os/cosi/api/layout/fat"
	"github.com/cosi-os/cosi/api/layout/layouttest"
	"github.com/cosi-os/cosi/images/content"
	images "github.com/cosi-os/cosi/images/fat"
)

const size = 34 << 20

var now = time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)

// others are files that nothing here may change.
var others = map[string]string{"EFI/BOOT/BOOTX64.EFI": strings.Repeat("loader", 300), "user-data.yaml": "kind: x\n"}

// disk is an ESP as the image builder makes it.
func disk(t *testing.T, files map[string]string) *layouttest.Memory {
	t.Helper()
	m := &layouttest.Memory{Data: make([]byte, size)}
	var all []images.File
	for _, some := range []map[string]string{others, files} {
		for path, text := range some {
			all = append(all, images.File{Path: path, Content: content.String(text)})
		}
	}
	if err := images.Write(m, size, all, images.Options{Label: "ESP", Time: now}); err != nil {
		t.Fatal(err)
	}
	return m
}

func open(t *testing.T, d fat.Disk) *fat.FS {
	t.Helper()
	f, err := fat.Open(d)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func names(t *testing.T, f *fat.FS, dir string) (all []string) {
	t.Helper()
	files, err := f.List(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		all = append(all, file.Name)
	}
	slices.Sort(all)
	return all
}

func read(t *testing.T, f *fat.FS, path string) string {
	t.Helper()
	data, err := f.Read(path, size)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// other is the path of somebody else's program. A test that needs a missing one is skipped, except where CI is set.
func other(t *testing.T, program string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	return path
}

// fsck has somebody else judge.
func fsck(t *testing.T, m *layouttest.Memory) {
	t.Helper()
	program := other(t, "/usr/sbin/fsck.vfat")
	file := filepath.Join(t.TempDir(), "esp")
	if err := os.WriteFile(file, m.Data, 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(program, "-n", "-V", file).CombinedOutput()
	if lines := strings.Split(strings.TrimSpace(string(out)), "\n"); err != nil || len(lines) > 7 {
		t.Errorf("fsck.vfat: %v\n%s", err, out)
	}
}

func TestWriteRenameRemove(t *testing.T) {
	m := disk(t, map[string]string{"loader/entries/cosi-00000001.conf": "one"})
	f := open(t, m)
	free := f.Free()
	kernel := strings.Repeat("0123456789abcdef", 5000)
	path := "EFI/BOOT/" + strings.Repeat("ab", 32) + ".efi"
	for _, step := range []error{
		f.Write(path, int64(len(kernel)), strings.NewReader(kernel), now),
		f.Write("loader/entries/cosi-00000002+3.conf", 3, strings.NewReader("two"), now),
		f.Rename("loader/entries/cosi-00000002+3.conf", "cosi-00000002+2-1.conf"),
		f.Rename("loader/entries/cosi-00000002+2-1.conf", "cosi-00000002.conf"),
		f.Remove("loader/entries/cosi-00000001.conf"),
	} {
		if step != nil {
			t.Fatal(step)
		}
	}
	fsck(t, m)
	f = open(t, m)
	if got, want := names(t, f, "loader/entries"), []string{"cosi-00000002.conf"}; !slices.Equal(got, want) {
		t.Errorf("entries %q; want %q", got, want)
	}
	if got := read(t, f, "loader/entries/cosi-00000002.conf"); got != "two" {
		t.Errorf("the entry holds %q", got)
	}
	if read(t, f, path) != kernel || read(t, f, "EFI/BOOT/BOOTX64.EFI") != others["EFI/BOOT/BOOTX64.EFI"] {
		t.Error("a file does not hold what was written")
	}
	pieces, err := f.Pieces(path)
	if err != nil || len(pieces) != 1 || pieces[0].Size != int64(len(kernel)) || string(m.Data[pieces[0].Offset:][:len(kernel)]) != kernel {
		t.Errorf("Pieces = %v, %v", pieces, err)
	}
	if err := f.Remove(path); err != nil {
		t.Fatal(err)
	}
	if f.Free() != free {
		t.Errorf("%d bytes are free; want %d", f.Free(), free)
	}
}

// mtools reads what is written, and what mtools writes, deletes and renames in between is understood.
func TestWithOtherWriters(t *testing.T) {
	program := other(t, "mtools")
	m := disk(t, map[string]string{"loader/entries/cosi-00000001.conf": "one"})
	if err := open(t, m).Write("loader/entries/cosi-00000002+3.conf", 3, strings.NewReader("two"), now); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "esp")
	if err := os.WriteFile(file, m.Data, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"mren", "-i", file, "::loader/entries/cosi-00000002+3.conf", "cosi-00000002+2-1.conf"},
		{"mcopy", "-i", file, "fat_test.go", "::loader/entries/A long name that somebody else wrote"},
		{"mcopy", "-i", file, "fat.go", "::fat.go"},
		{"mdel", "-i", file, "::loader/entries/cosi-00000001.conf"},
	} {
		if out, err := exec.Command(program, append([]string{"-c"}, args...)...).CombinedOutput(); err != nil {
			t.Fatalf("%q: %v\n%s", args, err, out)
		}
	}
	var err error
	if m.Data, err = os.ReadFile(file); err != nil {
		t.Fatal(err)
	}
	f := open(t, m)
	if got, want := names(t, f, "loader/entries"), []string{"A long name that somebody else wrote", "cosi-00000002+2-1.conf"}; !slices.Equal(got, want) {
		t.Errorf("entries %q; want %q", got, want)
	}
	want, err := os.ReadFile("fat.go")
	if err != nil || read(t, f, "fat.go") != string(want) {
		t.Errorf("the copied file differs (%v)", err)
	}
	if err := f.Rename("loader/entries/cosi-00000002+2-1.conf", "cosi-00000002.conf"); err != nil {
		t.Fatal(err)
	}
	fsck(t, m)
}

// A directory of one sector grows, and what became free in it is used again.
func TestADirectoryGrows(t *testing.T) {
	m := disk(t, map[string]string{"loader/entries/first.conf": "x"})
	var want []string
	for i := range 20 {
		name := fmt.Sprintf("%02d-%s.conf", i, strings.Repeat("n", 10+3*i))
		if err := open(t, m).Write("loader/entries/"+name, 4, strings.NewReader("text"), now); err != nil {
			t.Fatal(err)
		}
		want = append(want, name)
	}
	for i, name := range want {
		if i%2 == 0 {
			if err := open(t, m).Remove("loader/entries/" + name); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := open(t, m).Write("loader/entries/again.conf", 4, strings.NewReader("text"), now); err != nil {
		t.Fatal(err)
	}
	fsck(t, m)
}

func TestOverwrite(t *testing.T) {
	old := strings.Repeat("a", 1300)
	m := disk(t, map[string]string{"grub/grubenv": old})
	recorder := &layouttest.Recorder{}
	f := open(t, both{m, recorder})
	want := old[:600] + "b" + old[601:]
	if err := f.Overwrite("grub/grubenv", []byte(want)); err != nil {
		t.Fatal(err)
	}
	if got := read(t, open(t, m), "grub/grubenv"); got != want || recorder.Writes() != 1 {
		t.Errorf("%d sectors were written; want one, and the file changed", recorder.Writes())
	}
	if err := f.Overwrite("grub/grubenv", []byte("short")); err == nil {
		t.Error("another size is taken")
	}
	if err := f.Overwrite("grub/nothing", []byte("short")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
	fsck(t, m)
}

func TestRefusals(t *testing.T) {
	m := disk(t, map[string]string{"loader/entries/one.conf": "one"})
	before := bytes.Clone(m.Data)
	f := open(t, m)
	for _, test := range []struct {
		name string
		err  error
		want error
	}{
		{"a name that is taken", f.Write("LOADER/entries/ONE.conf", 1, strings.NewReader("x"), now), fs.ErrExist},
		{"no such directory", f.Write("nowhere/x", 1, strings.NewReader("x"), now), fs.ErrNotExist},
		{"too large", f.Write("loader/big", 2*size, strings.NewReader("x"), now), fat.ErrNoSpace},
		{"renamed to what is there", f.Rename("user-data.yaml", "EFI"), fs.ErrExist},
		{"nothing to rename", f.Rename("loader/x", "y"), fs.ErrNotExist},
		{"nothing to remove", f.Remove("loader/x"), fs.ErrNotExist},
		{"a directory", f.Remove("loader/entries"), fs.ErrNotExist},
	} {
		if !errors.Is(test.err, test.want) {
			t.Errorf("%s: %v; want %v", test.name, test.err, test.want)
		}
	}
	if !bytes.Equal(m.Data, before) {
		t.Error("what was refused has changed the disk")
	}
	if err := f.Write("loader/short", 100, strings.NewReader("x"), now); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("content that ends early: %v", err)
	}
	if got := names(t, open(t, m), "loader"); len(got) != 0 {
		t.Errorf("content that ends early left %q", got)
	}
	if _, err := fat.Open(&layouttest.Memory{Data: make([]byte, size)}); err == nil {
		t.Error("zeros were opened")
	}
}

// both writes to a disk and a recorder.
type both struct {
	*layouttest.Memory
	recorder *layouttest.Recorder
}

func (b both) WriteAt(p []byte, at int64) (int, error) {
	b.recorder.WriteAt(p, at)
	return b.Memory.WriteAt(p, at)
}

func (b both) Sync() error { return b.recorder.Sync() }

// Whatever part of a change a power cut leaves, each file is as it was or as it was to become, and the change can be made again.
func TestEveryCut(t *testing.T) {
	kernel := strings.Repeat("kernel", 400)
	long := "cosi-00000003-" + strings.Repeat("long", 25)
	const dir, old = "loader/entries/", "cosi-00000001.conf"
	for name, test := range map[string]struct {
		change func(f *fat.FS) error
		// allowed are the contents of dir, beside old, that a cut may leave.
		allowed [][]string
	}{
		"write": {
			func(f *fat.FS) error {
				return f.Write(dir+"cosi-00000003+3.conf", int64(len(kernel)), strings.NewReader(kernel), now)
			},
			[][]string{{"cosi-00000002+2-1.conf"}, {"cosi-00000002+2-1.conf", "cosi-00000003+3.conf"}},
		},
		"write, and the directory grows": {
			func(f *fat.FS) error { return f.Write(dir+long, int64(len(kernel)), strings.NewReader(kernel), now) },
			[][]string{{"cosi-00000002+2-1.conf"}, {"cosi-00000002+2-1.conf", long}},
		},
		"rename, shorter": {
			func(f *fat.FS) error { return f.Rename(dir+"cosi-00000002+2-1.conf", "cosi-00000002.conf") },
			[][]string{{"cosi-00000002+2-1.conf"}, {"cosi-00000002.conf"}},
		},
		"rename, longer": {
			func(f *fat.FS) error {
				return f.Rename(dir+"cosi-00000002+2-1.conf", "cosi-00000002-and-something-behind-it.conf")
			},
			[][]string{
				{"cosi-00000002+2-1.conf"}, {"cosi-00000002+2-1.conf", "cosi-00000002-and-something-behind-it.conf"},
				{"cosi-00000002-and-something-behind-it.conf"},
			},
		},
		"remove": {
			func(f *fat.FS) error { return f.Remove(dir + "cosi-00000002+2-1.conf") },
			[][]string{{"cosi-00000002+2-1.conf"}, {}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := disk(t, map[string]string{dir + old: "old", dir + "cosi-00000002+2-1.conf": kernel})
			before := bytes.Clone(m.Data)
			recorder := &layouttest.Recorder{}
			if err := test.change(open(t, both{m, recorder})); err != nil {
				t.Fatal(err)
			}
			fsck(t, m)
			seed, cuts := rand.Uint64(), 0
			seen := map[string]bool{fmt.Sprint(names(t, open(t, &layouttest.Memory{Data: before}), dir)): true} // before the first write
			for data := range recorder.Cuts(before, rand.New(rand.NewPCG(seed, 0)), 2) {
				cuts++
				cut := &layouttest.Memory{Data: data}
				f := open(t, cut)
				got := names(t, f, dir)
				at := slices.IndexFunc(test.allowed, func(s []string) bool { return slices.Equal(append([]string{old}, s...), got) })
				if at < 0 {
					t.Fatalf("seed %d, cut %d: %q", seed, cuts, got)
				}
				seen[fmt.Sprint(got)] = true
				for _, name := range got {
					if want := map[bool]string{true: "old", false: kernel}[name == old]; read(t, f, dir+name) != want {
						t.Fatalf("seed %d, cut %d: %s does not hold what was written", seed, cuts, name)
					}
				}
				for path, want := range others {
					if read(t, f, path) != want {
						t.Fatalf("seed %d, cut %d: %s has changed", seed, cuts, path)
					}
				}
				if at == 0 { // as if nothing had happened: again
					if err := test.change(f); err != nil {
						t.Fatalf("seed %d, cut %d: again: %v", seed, cuts, err)
					}
					if got, want := names(t, open(t, cut), dir), append([]string{old}, test.allowed[len(test.allowed)-1]...); !slices.Equal(got, want) {
						t.Fatalf("seed %d, cut %d: again: %q; want %q", seed, cuts, got, want)
					}
				}
			}
			if len(seen) < 2 {
				t.Errorf("%d cuts showed %v only", cuts, seen)
			}
		})
	}
}
