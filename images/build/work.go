package build

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// workPrefix is how the directories begin in which outputs are made.
const workPrefix = ".work-"

// alone locks a directory against other builds into it, in this process or another, until release is called.
func alone(dir string) (release func(), err error) {
	guard, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(guard.Fd()), unix.LOCK_EX); err != nil {
		guard.Close()
		return nil, fmt.Errorf("lock %s: %w", dir, err)
	}
	return func() { guard.Close() }, nil
}

// workDir makes a directory below output for what is not whole yet; remove removes it. Those that builds have left which were killed are removed
// before: each build holds a lock on its own.
func workDir(output string) (dir string, remove func(), err error) {
	release, err := alone(output)
	if err != nil {
		return "", nil, err
	}
	defer release()
	entries, err := os.ReadDir(output)
	if err != nil {
		return "", nil, err
	}
	for _, e := range entries {
		if e.IsDir() && strings.HasPrefix(e.Name(), workPrefix) {
			if err := removeLeft(filepath.Join(output, e.Name())); err != nil {
				return "", nil, err
			}
		}
	}
	if dir, err = os.MkdirTemp(output, workPrefix); err != nil {
		return "", nil, err
	}
	unlock, err := alone(dir)
	if err != nil {
		os.RemoveAll(dir)
		return "", nil, err
	}
	return dir, func() { os.RemoveAll(dir); unlock() }, nil
}

// removeLeft removes a directory that no build holds.
func removeLeft(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return nil // it is gone, or another user's
	}
	defer f.Close()
	if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil {
		return nil
	}
	return os.RemoveAll(dir)
}
