package supervisor

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// killGroup kills every process of a control group.
func killGroup(dir string) error {
	return os.WriteFile(filepath.Join(dir, "cgroup.kill"), []byte("1"), 0)
}

// freshGroup makes a control group anew. A group that was killed once cannot be used again: clone3 with CLONE_INTO_CGROUP compares the
// group's count of kills with that of the parent's group and kills the child when they differ. Seen on Linux 6.12.95 and 6.18.44.
func freshGroup(dir string) error {
	const patience = time.Second // the killed leave their group a moment later
	for began := time.Now(); ; time.Sleep(5 * time.Millisecond) {
		err := os.Remove(dir)
		if errors.Is(err, unix.EBUSY) && time.Since(began) < patience {
			continue
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
		return openPressure(dir)
	}
}

// openPressure lets everybody who sees a control group wait for its pressure, as /proc/pressure lets everybody wait for the node's: to set
// a trigger is to write. A kernel without PSI has no such files.
func openPressure(dir string) error {
	for _, resource := range []string{"cpu", "io", "memory"} {
		if err := os.Chmod(filepath.Join(dir, resource+".pressure"), 0o666); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}
