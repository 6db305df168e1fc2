package disk

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// clockFile holds the last time that the node knew, in RFC 3339.
const clockFile = "clock"

// ReadClock returns the time that was kept in a directory, zero if there is none.
func ReadClock(dir string) time.Time {
	text, err := os.ReadFile(filepath.Join(dir, clockFile))
	if err != nil {
		return time.Time{}
	}
	kept, err := time.Parse(time.RFC3339, strings.TrimSpace(string(text)))
	if err != nil {
		return time.Time{} // cut short by a loss of power before the file was ours
	}
	return kept
}

// WriteClock keeps a time in a directory: the old one or the new one is there at any moment.
func WriteClock(dir string, now time.Time) error {
	temporary, path := filepath.Join(dir, clockFile+".new"), filepath.Join(dir, clockFile)
	file, err := os.Create(temporary)
	if err != nil {
		return err
	}
	_, err = file.WriteString(now.UTC().Format(time.RFC3339) + "\n")
	if err := errors.Join(err, file.Sync(), file.Close()); err != nil {
		return err
	}
	if err := os.Rename(temporary, path); err != nil {
		return err
	}
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: dir, Err: err}
	}
	defer unix.Close(fd)
	return unix.Fsync(fd)
}
