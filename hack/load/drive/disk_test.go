package drive

import (
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestMemoryIsNoDisk: every other file system waits for one, whatever its name.
func TestMemoryIsNoDisk(t *testing.T) {
	const memory = "/dev/shm"
	var fs unix.Statfs_t
	if err := unix.Statfs(memory, &fs); err != nil || int64(fs.Type) != unix.TMPFS_MAGIC {
		t.Skipf("a tmpfs on %s is needed: %v", memory, err)
	}
	if err := refuseMemory(memory); err == nil || !strings.Contains(err.Error(), "tmpfs") {
		t.Errorf("%s: %v; want it refused", memory, err)
	}
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Statfs(dir, &fs); err != nil {
		t.Fatal(err)
	}
	if err := refuseMemory(dir); (err != nil) != (memories[int64(fs.Type)] != "") {
		t.Errorf("%s, of type %#x: %v", dir, fs.Type, err)
	}
}
