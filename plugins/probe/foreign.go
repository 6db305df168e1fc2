package probe

import (
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// envForeign says that the process is a program of no file system already.
const envForeign = "COSI_PROBE_FOREIGN"

// BecomeForeign has the process go on as a copy of its program that is in no file system, which a node is to notice. It returns nil when it
// is that already. After the SDK's first act it could not. The kernel then
// names the process for the descriptor of the copy.
func BecomeForeign() error {
	if os.Getenv(envForeign) != "" {
		return nil
	}
	fd, err := unix.MemfdCreate("foreign", unix.MFD_CLOEXEC)
	if err != nil {
		return fmt.Errorf("memfd: %w", err)
	}
	file := os.NewFile(uintptr(fd), "foreign")
	defer file.Close()
	program, err := os.Open("/proc/self/exe")
	if err != nil {
		return err
	}
	defer program.Close()
	if _, err := io.Copy(file, program); err != nil {
		return err
	}
	err = unix.Exec(fmt.Sprintf("/proc/self/fd/%d", fd), os.Args, append(os.Environ(), envForeign+"=yes"))
	return fmt.Errorf("execute the copy: %w", err)
}
