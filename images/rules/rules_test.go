package rules

import (
	"bytes"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/cosi-os/cosi/images/content"
	"github.com/cosi-os/cosi/images/rootfs"
)

// program is one that was compiled for this machine, without libraries.
func program(t *testing.T) content.Content {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{"go.mod": "module example.org/program\n\ngo 1.26\n", "main.go": "package main\n\nfunc main() {}\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("go", "build", "-o", "program", ".")
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	data, err := os.ReadFile(filepath.Join(dir, "program"))
	if err != nil {
		t.Fatal(err)
	}
	return bytes.NewReader(data)
}

// dynamic is a program of this machine that is linked dynamically.
func dynamic(t *testing.T) content.Content {
	t.Helper()
	data, err := os.ReadFile("/bin/sh")
	if err != nil {
		t.Fatal(err)
	}
	return bytes.NewReader(data)
}

func TestWhatMayNotBeInARoot(t *testing.T) {
	static := program(t)
	other := map[string]string{"amd64": "arm64", "arm64": "amd64"}[runtime.GOARCH]
	for name, c := range map[string]struct {
		entry rootfs.Entry
		arch  string
		want  string // empty: it may
	}{
		"a program":                        {rootfs.Entry{Path: "usr/bin/kubelet", Mode: 0o755, Content: static}, "", ""},
		"a text":                           {rootfs.Entry{Path: "usr/lib/os-release", Mode: 0o644, Content: content.String("ID=cosi\n")}, "", ""},
		"nothing":                          {rootfs.Entry{Path: "usr/lib/empty", Mode: 0o644}, "", ""},
		"a directory":                      {rootfs.Entry{Path: "usr/sh", Mode: fs.ModeDir | 0o755}, "", ""},
		"a link":                           {rootfs.Entry{Path: "usr/bin/k", Mode: fs.ModeSymlink | 0o777, Target: "kubelet"}, "", ""},
		"a link that leaves":               {rootfs.Entry{Path: "usr/k", Mode: fs.ModeSymlink | 0o777, Target: "../../etc"}, "", `points to "../../etc"`},
		"a link from the top":              {rootfs.Entry{Path: "usr/k", Mode: fs.ModeSymlink | 0o777, Target: "/etc"}, "", `points to "/etc"`},
		"a setuid program":                 {rootfs.Entry{Path: "usr/bin/su", Mode: fs.ModeSetuid | 0o755, Content: static}, "", "nothing setuid"},
		"a device":                         {rootfs.Entry{Path: "usr/null", Mode: fs.ModeDevice | 0o600}, "", "want a file"},
		"a file for everybody":             {rootfs.Entry{Path: "usr/lib/x", Mode: 0o666}, "", "may write to it"},
		"a directory for everybody":        {rootfs.Entry{Path: "usr/tmp", Mode: fs.ModeDir | 0o777}, "", "may write to it"},
		"a shell":                          {rootfs.Entry{Path: "usr/bin/bash", Mode: 0o755, Content: static}, "", "shell or an interpreter"},
		"a shell by a link":                {rootfs.Entry{Path: "usr/bin/sh", Mode: fs.ModeSymlink | 0o777, Target: "kubelet"}, "", "shell or an interpreter"},
		"an interpreter":                   {rootfs.Entry{Path: "usr/bin/python3.13", Mode: 0o755, Content: static}, "", "shell or an interpreter"},
		"a script":                         {rootfs.Entry{Path: "usr/bin/start", Mode: 0o755, Content: content.String("#!/bin/sh\n")}, "", "is a script"},
		"a script that is not to be run":   {rootfs.Entry{Path: "usr/lib/start", Mode: 0o644, Content: content.String("#!/bin/sh\n")}, "", "is a script"},
		"a text to be run":                 {rootfs.Entry{Path: "usr/bin/text", Mode: 0o755, Content: content.String("text")}, "", "is no ELF file"},
		"a program under a false name":     {rootfs.Entry{Path: "usr/lib/data", Mode: 0o644, Content: static}, "", "its mode says that it is none"},
		"a program for another machine":    {rootfs.Entry{Path: "usr/bin/kubelet", Mode: 0o755, Content: static}, other, "is for EM_"},
		"a program with libraries":         {rootfs.Entry{Path: "usr/bin/kubelet", Mode: 0o755, Content: dynamic(t)}, "", "is linked dynamically"},
		"a module that is no module":       {rootfs.Entry{Path: "usr/lib/modules/6/a.ko", Mode: 0o644, Content: content.String("text")}, "", "is no ELF file"},
		"a program that says it is module": {rootfs.Entry{Path: "usr/lib/modules/6/a.ko", Mode: 0o644, Content: static}, "", "its mode says that it is none"},
	} {
		t.Run(name, func(t *testing.T) {
			if c.arch == "" {
				c.arch = runtime.GOARCH
			}
			err := Check(c.entry, c.arch)
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want) || !strings.HasPrefix(err.Error(), "/"+c.entry.Path+": ")) {
				t.Errorf("Check = %v; want %q", err, c.want)
			}
		})
	}
}
