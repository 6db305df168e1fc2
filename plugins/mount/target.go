package mount

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// checkTarget refuses what is not a clean path below /var or /run/mnt.
func checkTarget(target string) error {
	below := strings.HasPrefix(target, "/var/") || strings.HasPrefix(target, "/run/mnt/")
	if !below || filepath.Clean(target) != target {
		return fmt.Errorf("%q is not a clean path below /var or /run/mnt", target)
	}
	return nil
}

// openDirectory opens path step by step, so that no symbolic link leads elsewhere. With make it creates what is missing.
// The descriptor is good for /proc/self/fd only.
func openDirectory(path string, make bool) (int, error) {
	dir, err := unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	done := ""
	for name := range strings.SplitSeq(strings.Trim(path, "/"), "/") {
		done += "/" + name
		next, err := step(dir, name, make)
		unix.Close(dir)
		if err != nil {
			return -1, fmt.Errorf("%s: %w", done, err)
		}
		dir = next
	}
	return dir, nil
}

var (
	errSymlink      = errors.New("is a symbolic link")
	errNotDirectory = errors.New("is not a directory")
)

func step(dir int, name string, make bool) (int, error) {
	how := unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_BENEATH,
	}
	fd, err := unix.Openat2(dir, name, &how)
	if err == unix.ENOENT && make {
		if err := unix.Mkdirat(dir, name, 0o755); err != nil && err != unix.EEXIST {
			return -1, err
		}
		fd, err = unix.Openat2(dir, name, &how)
	}
	switch err {
	case unix.ELOOP:
		return -1, errSymlink
	case unix.ENOTDIR:
		return -1, errNotDirectory
	}
	return fd, err
}

func descriptorPath(fd int) string { return fmt.Sprintf("/proc/self/fd/%d", fd) }
