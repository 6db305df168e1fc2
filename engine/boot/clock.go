package boot

import (
	"time"

	"golang.org/x/sys/unix"
)

// ClockFloor moves a clock that stands before the image was built to that time, and reports whether it did. A machine without a
// clock begins at 1970, where no certificate is valid.
func ClockFloor(built time.Time) (bool, error) {
	if built.IsZero() || !time.Now().Before(built) {
		return false, nil
	}
	spec := unix.NsecToTimespec(built.UnixNano())
	return true, unix.ClockSettime(unix.CLOCK_REALTIME, &spec)
}

// SinceBoot is CLOCK_BOOTTIME.
func SinceBoot() time.Duration {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &now); err != nil {
		return 0
	}
	return time.Duration(now.Nano())
}
