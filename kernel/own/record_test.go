package own

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// again is the same kernel, with what the tree at root has recorded.
func again(t *testing.T, root string) *Kernel {
	t.Helper()
	k, err := New(context.Background(), root, "amd64", pinned)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// recordedKernel builds a kernel and has its tree record it.
func recordedKernel(t *testing.T) (root, dir string, b *Builder) {
	t.Helper()
	tools(t, "12.2")
	root, b = tree(t, "CONFIG_A=y\n"), builder(t)
	k := again(t, root)
	dir, err := b.Build(context.Background(), k, source(t, filepath.Join(t.TempDir(), "counts")))
	if err != nil {
		t.Fatal(err)
	}
	if err := k.Check(dir); !errors.Is(err, ErrNotRecorded) {
		t.Errorf("Check of what nobody has recorded: %v; want ErrNotRecorded", err)
	}
	for range 2 { // the second time there is nothing to add
		if err := k.Record(root, dir); err != nil {
			t.Fatal(err)
		}
	}
	return root, dir, b
}

func TestTheSameInputsGiveTheRecordedKernel(t *testing.T) {
	root, dir, b := recordedKernel(t)
	text := readFile(t, filepath.Join(root, RecordFile))
	const head = "# linux-source-6.12 6.12.1-1 for amd64, by\n#   x86_64-linux-gnu-gcc: 12.2\n"
	if !strings.HasPrefix(text, head) || strings.Count(text, "\n") != 1+4+4 || !strings.Contains(text, "  "+filepath.Base(dir)+"/boot/vmlinuz-6.12.0-cosi\n") {
		t.Errorf("%s is\n%s", RecordFile, text)
	}
	cmd := exec.Command("sha256sum", "--check", "--strict", filepath.Join(root, RecordFile))
	cmd.Dir = filepath.Join(b.Cache, "kernels")
	if out, err := cmd.CombinedOutput(); err != nil || strings.Count(string(out), ": OK\n") != 4 {
		t.Errorf("sha256sum: %v\n%s", err, out)
	}
	if err := again(t, root).Check(dir); err != nil {
		t.Error(err)
	}
	bin := t.TempDir() // Linux notes which compiler of Rust there is
	write(t, filepath.Join(bin, "rustc"), "#!/bin/sh\necho '# rustc 1.95.0'\n")
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	if _, err := builder(t).Build(context.Background(), again(t, root), source(t, filepath.Join(t.TempDir(), "counts"))); err != nil {
		t.Errorf("the same kernel once more: %v", err)
	}
	tools(t, "14.2")
	if err := again(t, root).Check(dir); !errors.Is(err, ErrNotRecorded) {
		t.Errorf("Check with another compiler: %v; want ErrNotRecorded", err)
	}
}

// A make that adds to what it makes stands for whatever makes another kernel of the same.
func TestAnotherKernelOfTheSameInputsIsAnError(t *testing.T) {
	root, _, _ := recordedKernel(t)
	counts := filepath.Join(t.TempDir(), "counts")
	from, b := source(t, counts), builder(t)
	bin, path := t.TempDir(), os.Getenv("PATH")
	write(t, filepath.Join(bin, "make"), "#!/bin/sh\nPATH='"+path+"'\nmake \"$@\" && echo 1 other >>\"$2\"/System.map\n")
	t.Setenv("PATH", bin+":"+path)
	k := again(t, root)
	for range 2 {
		_, err := b.Build(context.Background(), k, from)
		other := k.Dir(b.Cache) + ".other"
		if !errors.Is(err, ErrOther) || strings.Count(err.Error(), "SHA-256") != 1 || !strings.Contains(err.Error(), other+"/boot/System.map-6.12.0-cosi: SHA-256 ") ||
			!strings.Contains(err.Error(), RecordFile+":6: ") || !strings.Contains(err.Error(), b.Cache+"/kernels/amd64.work, which is left") {
			t.Errorf("Build: %v; want ErrOther and where they are", err)
		}
		if got := readFile(t, filepath.Join(other, "boot/System.map-6.12.0-cosi")); !strings.Contains(got, "1 other\n") {
			t.Errorf("what was built is lost: %q", got)
		}
		if _, err := k.Cached(b.Cache); !errors.Is(err, ErrNotBuilt) {
			t.Errorf("Cached: %v; want that it is not there", err)
		}
	}
	t.Setenv("PATH", path)
	if err := os.RemoveAll(filepath.Join(b.Cache, "kernels/amd64.work")); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Build(context.Background(), k, from); err != nil {
		t.Errorf("from the start: %v", err)
	}
}

func TestACachedKernelThatHasChangedIsSeen(t *testing.T) {
	root, dir, _ := recordedKernel(t)
	k := again(t, root)
	before := readFile(t, filepath.Join(root, RecordFile))
	image := filepath.Join(dir, "boot/vmlinuz-6.12.0-cosi")
	whole := readFile(t, image)
	for name, change := range map[string]struct {
		do, undo func() error
		says     string
	}{
		"a byte":    {func() error { return os.WriteFile(image, []byte(strings.Replace(whole, "cosi", "Cosi", 1)), 0o644) }, nil, image + ": SHA-256 "},
		"a file":    {func() error { return os.Remove(image) }, nil, ":8: " + image + " is not there"},
		"one more":  {func() error { return os.WriteFile(image+".old", nil, 0o644) }, func() error { return os.Remove(image + ".old") }, image + ".old: " + RecordFile + " does not have it"},
		"no change": {func() error { return nil }, nil, ""},
	} {
		if err := change.do(); err != nil {
			t.Fatal(err)
		}
		for what, err := range map[string]error{"Check": k.Check(dir), "Record": k.Record(root, dir)} {
			if (err == nil) != (change.says == "") || err != nil && (!errors.Is(err, ErrOther) || !strings.Contains(err.Error(), change.says)) {
				t.Errorf("%s of %s: %v; want %q", what, name, err, change.says)
			}
		}
		if change.undo != nil {
			if err := change.undo(); err != nil {
				t.Fatal(err)
			}
		}
		write(t, image, whole)
	}
	if got := readFile(t, filepath.Join(root, RecordFile)); got != before {
		t.Errorf("the record has become\n%s", got)
	}
}

func TestWhatIsNoRecordIsAnError(t *testing.T) {
	root, dir, _ := recordedKernel(t)
	file := filepath.Join(root, RecordFile)
	whole := readFile(t, file)
	lines := strings.Split(strings.TrimSpace(whole), "\n")
	for text, want := range map[string]string{
		whole + "hello\n":           ":10: want SHA-256, two spaces, HASH OF INPUTS/FILE",
		whole + lines[5] + "\n":     ":10: boot/System.map-6.12.0-cosi stands in line 6 already",
		whole + lines[5][1:]:        ":10: want SHA-256",
		"\n" + whole[:len(whole)-1]: "",
	} {
		write(t, file, text)
		k, err := New(context.Background(), root, "amd64", pinned)
		if want == "" && err == nil {
			err = k.Check(dir)
		}
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), RecordFile+want) {
			t.Errorf("New: %v; want %q", err, want)
		}
	}
}
