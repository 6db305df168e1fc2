package vmtest

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cosi-os/cosi/tools/qemu"
)

// Ext4 returns a disk with an empty ext4 file system. The guest finds it by its serial number, which
// is the ID. Without mke2fs the test is skipped, except where CI is set.
func Ext4(t testing.TB, id string) qemu.Disk {
	t.Helper()
	file := filepath.Join(t.TempDir(), id+".ext4")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(file, 64<<20); err != nil {
		t.Fatal(err)
	}
	run(t, "mke2fs", "-q", "-F", "-t", "ext4", "-L", id, file)
	return qemu.Disk{ID: id, File: file, Format: "raw"}
}

// BrokenExt4 is Ext4 with a file that the file system finds an error in when it is opened: its inode is wiped.
func BrokenExt4(t testing.TB, id, file string) qemu.Disk {
	t.Helper()
	d := Ext4(t, id)
	for _, request := range []string{"write /dev/null " + file, "clri " + file} {
		if out := run(t, "debugfs", "-w", "-R", request, d.File); strings.Contains(out, "not found") {
			t.Fatalf("debugfs %s: %s", request, out)
		}
	}
	return d
}

// SystemDisk returns a copy of a definition's raw image on a disk of size bytes, for a node that keeps its state on it. 0 is the image's own size,
// without room for any.
func SystemDisk(t testing.TB, definition string, size int64) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "system.raw")
	run(t, "cp", "--sparse=always", Image(t, definition, "raw"), file)
	if size == 0 {
		return file
	}
	if err := os.Truncate(file, size); err != nil {
		t.Fatal(err)
	}
	return file
}

// CheckUnwritten fails the test unless the disk, which SystemDisk returned, holds what the image does, after the VM has ended.
func CheckUnwritten(t testing.TB, file, definition string) {
	t.Helper()
	run(t, "cmp", Image(t, definition, "raw"), file)
}

// ReadExt4 returns a file of the disk's file system, after the VM has ended; ok is false if there is
// no such file.
func ReadExt4(t testing.TB, d qemu.Disk, path string) (data string, ok bool) {
	t.Helper()
	out := run(t, "debugfs", "-R", "cat "+path, d.File)
	return out, !strings.Contains(out, "File not found")
}

// CheckExt4 fails the test unless the file system is clean, as one that was unmounted is.
func CheckExt4(t testing.TB, d qemu.Disk) {
	t.Helper()
	run(t, "e2fsck", "-f", "-n", d.File)
	if out := run(t, "dumpe2fs", "-h", d.File); strings.Contains(out, "needs_recovery") {
		t.Errorf("%s was not unmounted:\n%s", d.ID, out)
	}
}

// run runs a program of e2fsprogs, which Debian keeps where a user's PATH does not lead.
func run(t testing.TB, program string, args ...string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		if path, err = exec.LookPath("/usr/sbin/" + program); err != nil {
			missing(t, "%v (hack/setup test installs it)", err)
		}
	}
	out, err := exec.Command(path, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", program, strings.Join(args, " "), err, out)
	}
	return string(out)
}
