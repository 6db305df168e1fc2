package extension

import (
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/cosi-os/cosi/images/rootfs"
)

// program is what a static program begins with, and its table of segments, which is empty.
var program = func() string {
	machine := map[string]string{"amd64": "\x3e\x00", "arm64": "\xb7\x00"}[runtime.GOARCH]
	header := "\x7fELF\x02\x01\x01" + strings.Repeat("\x00", 9) + "\x02\x00" + machine + "\x01\x00\x00\x00"
	return header + strings.Repeat("\x00", 64-len(header)-12) + "\x40\x00\x38\x00\x00\x00\x40\x00\x00\x00\x00\x00"
}()

const release = "usr/lib/extension-release.d/extension-release.hello"

// hello is an extension with a program, and a plugin.
func hello() map[string]string {
	return map[string]string{
		release:                             "ID=cosi\n",
		"usr/bin/hello":                     program,
		"usr/share/hello/greeting":          "hello\n",
		"usr/lib/cosi/plugins/greeter.json": `{"name": "greeter", "description": "greets"}`,
		"usr/lib/cosi/bin/greeter":          program,
	}
}

// write makes a directory of files; what lies in a bin may be executed.
func write(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "hello")
	for path, text := range files {
		mode := fs.FileMode(0o640)
		if filepath.Base(filepath.Dir(path)) == "bin" {
			mode = 0o750
		}
		file := filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(file), 0o775); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestAnExtensionIsADirectoryOrAnImage(t *testing.T) {
	dir := write(t, hello())
	if err := os.Symlink("hello", filepath.Join(dir, "usr/bin/greet")); err != nil {
		t.Fatal(err)
	}
	one, err := Open(dir, runtime.GOARCH)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]fs.FileMode{}
	for _, e := range one.Entries {
		got[e.Path] = e.Mode
	}
	want := map[string]fs.FileMode{
		release: 0o644, "usr/bin/hello": 0o755, "usr/share/hello/greeting": 0o644, "usr/lib/cosi/bin/greeter": 0o755, "usr/bin/greet": fs.ModeSymlink | 0o777,
	}
	for path, mode := range want {
		if got[path] != mode {
			t.Errorf("%s: %v; want %v", path, got[path], mode)
		}
	}
	if len(got) != len(want) || len(one.Plugins) != 1 || one.Plugins[0].Declaration.Name != "greeter" || one.Name != "hello" {
		t.Errorf("Open = %+v, with %v", one, got)
	}

	image := filepath.Join(t.TempDir(), "hello.raw")
	f, err := os.Create(image)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	packed := append(one.Entries, rootfs.Entry{Path: "usr/lib/cosi/plugins/greeter.json", Mode: 0o644, Content: strings.NewReader(hello()["usr/lib/cosi/plugins/greeter.json"])})
	if err := rootfs.Write(f, packed, time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	other, err := Open(image, runtime.GOARCH)
	if err != nil || other.Digest != one.Digest || other.Name != "hello" || len(other.Plugins) != 1 {
		t.Errorf("as an image: %+v, %v; want the digest %s", other, err, one.Digest)
	}
	if err := os.Chmod(filepath.Join(dir, "usr/bin/hello"), 0o777); err != nil {
		t.Fatal(err)
	}
	if again, err := Open(dir, runtime.GOARCH); err != nil || again.Digest != one.Digest {
		t.Errorf("with another umask: %+v, %v; want the same digest", again, err)
	}
	if err := os.WriteFile(filepath.Join(dir, "usr/share/hello/greeting"), []byte("hallo\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if changed, err := Open(dir, runtime.GOARCH); err != nil || changed.Digest == one.Digest {
		t.Errorf("changed: %v; want another digest than %s", err, one.Digest)
	}
}

func TestWhatAnExtensionMayNotBring(t *testing.T) {
	const greeter = "usr/lib/cosi/plugins/greeter.json"
	for name, c := range map[string]struct{ path, text, want string }{
		"a file elsewhere":             {"etc/hello", "x", "/etc/hello: an extension has nothing outside of /usr"},
		"a shell":                      {"usr/bin/sh", program, "/usr/bin/sh: is the name of a shell"},
		"a script":                     {"usr/bin/start", "#!/bin/sh\n", "/usr/bin/start: is a script"},
		"a module":                     {"usr/lib/modules/6/a", "x", "name them in kernel.modules"},
		"another's release":            {"usr/lib/extension-release.d/extension-release.hallo", "ID=cosi\n", "want extension-release.hello"},
		"another system's":             {release, "ID=debian\n", "ID=debian; want cosi or _any"},
		"another machine's":            {release, "ID=\"_any\"\nARCHITECTURE=riscv64\n", "ARCHITECTURE=riscv64; want "},
		"what is the image's":          {"usr/lib/cosi/image.json", "{}", "nothing below /usr/lib/cosi but plugins"},
		"a program of no plugin":       {"usr/lib/cosi/bin/other", program, "belongs to no plugin"},
		"kinds of no plugin":           {"usr/lib/cosi/plugins/other.binpb", "x", "belongs to no plugin"},
		"a declaration that is none":   {greeter, "{}", "/" + greeter + ": name: "},
		"a plugin that says who it is": {greeter, `{"name": "greeter", "description": "", "uid": 0, "argv": ["/x"]}`, "argv, uid, gid"},
		"a plugin without a program":   {"usr/lib/cosi/plugins/other.json", `{"name": "other", "description": ""}`, "no executable"},
		"under another name":           {greeter, `{"name": "other", "description": ""}`, `name: "other"; want the file's`},
	} {
		t.Run(name, func(t *testing.T) {
			files := hello()
			files[c.path] = c.text
			dir := write(t, files)
			if _, err := Open(dir, runtime.GOARCH); err == nil || !strings.Contains(err.Error(), c.want) || !strings.HasPrefix(err.Error(), dir+": ") {
				t.Errorf("Open = %v; want %q", err, c.want)
			}
		})
	}
	files := hello()
	delete(files, release)
	if _, err := Open(write(t, files), runtime.GOARCH); err == nil || !strings.Contains(err.Error(), "says not what it is for") {
		t.Errorf("without a release file: %v", err)
	}
	dir := write(t, hello())
	if err := os.Chmod(filepath.Join(dir, "usr/bin/hello"), 0o755|fs.ModeSetuid); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir, runtime.GOARCH); err == nil || !strings.Contains(err.Error(), "nothing setuid") {
		t.Errorf("a setuid program: %v", err)
	}
	if _, err := Open(filepath.Join(dir, "usr/bin/hello"), runtime.GOARCH); err == nil || !strings.Contains(err.Error(), "erofs: is not one of ours") {
		t.Errorf("a program: %v", err)
	}
}
