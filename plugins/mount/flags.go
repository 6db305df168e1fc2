package mount

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// flagNumbers are the flags of mount(2) by their names in mount(8).
var flagNumbers = map[string]uintptr{
	"ro":          unix.MS_RDONLY,
	"nosuid":      unix.MS_NOSUID,
	"nodev":       unix.MS_NODEV,
	"noexec":      unix.MS_NOEXEC,
	"noatime":     unix.MS_NOATIME,
	"nodiratime":  unix.MS_NODIRATIME,
	"relatime":    unix.MS_RELATIME,
	"strictatime": unix.MS_STRICTATIME,
	"lazytime":    unix.MS_LAZYTIME,
	"sync":        unix.MS_SYNCHRONOUS,
	"dirsync":     unix.MS_DIRSYNC,
}

func flagBits(names []string) (uintptr, error) {
	var bits uintptr
	for _, name := range names {
		bit, ok := flagNumbers[name]
		if !ok {
			return 0, fmt.Errorf("%q is not a mount flag", name)
		}
		bits |= bit
	}
	return bits, nil
}
