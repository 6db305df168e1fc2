package log

import (
	"errors"
	"fmt"
)

// DamagedError says that a file of the store is not as it was written, and where. Nothing in the directory has been touched.
type DamagedError struct {
	File   string
	Offset int64
	Reason string
}

func (e *DamagedError) Error() string {
	return fmt.Sprintf("%s: damaged at byte %d: %s", e.File, e.Offset, e.Reason)
}

// ErrVersion is wrapped by Open's error when a file was written by a version of this package that came later.
var ErrVersion = errors.New("unknown version of the format")

// ErrLocked is wrapped by Open's error when another process has the directory.
var ErrLocked = errors.New("another process uses it")

// ErrClosed is what writes to a closed store fail with.
var ErrClosed = errors.New("the store is closed")
