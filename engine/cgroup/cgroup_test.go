package cgroup

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestTreeOnTheKernel runs where a cgroup2 file system can be mounted: as root.
func TestTreeOnTheKernel(t *testing.T) {
	mount := t.TempDir()
	if err := unix.Mount("none", mount, "cgroup2", 0, ""); errors.Is(err, unix.EPERM) {
		t.Skip("mounting is not permitted here")
	} else if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, dir := range []string{"cosi/plugins/x", "cosi/plugins", "cosi/runtime", "cosi"} {
			os.Remove(filepath.Join(mount, dir))
		}
		unix.Unmount(mount, 0)
	})
	for range 2 { // a group that is there already is no error
		tree, err := New(mount)
		if err != nil {
			t.Fatal(err)
		}
		dir, err := tree.Plugin("x")
		if err != nil || dir != filepath.Join(mount, "cosi/plugins/x") {
			t.Fatalf("Plugin = %q, %v", dir, err)
		}
		if _, err := os.Stat(filepath.Join(dir, "cgroup.kill")); err != nil {
			t.Errorf("the kernel does not know the group: %v", err)
		}
		if _, err := tree.Runtime(); err != nil {
			t.Error(err)
		}
	}
}

func TestHandDownAsksForWhatIsThere(t *testing.T) {
	for has, want := range map[string]string{
		"cpuset cpu io memory hugetlb pids\n": "+cpu +memory +pids +io",
		"cpuset memory\n":                     "+memory",
		"\n":                                  "",
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "cgroup.controllers"), []byte(has), 0o600); err != nil {
			t.Fatal(err)
		}
		control := filepath.Join(dir, "cgroup.subtree_control")
		if err := os.WriteFile(control, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := handDown(dir); err != nil {
			t.Fatal(err)
		}
		if got, _ := os.ReadFile(control); string(got) != want {
			t.Errorf("with %q: %q; want %q", has, got, want)
		}
	}
}
