// Package launch confines the process it runs in and replaces it with a program: `engine launch NAME`, started by PID 1, so that
// none of it touches PID 1.
//
// Descriptor 3 is a pipe to the supervisor, closed by a successful exec. Before, it may carry lines: "landlock ABI" if a Landlock
// domain was entered, "error TEXT" if the program was not started.
package launch

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/cosi-os/cosi/api/declaration"
	"github.com/cosi-os/cosi/engine/seccomp"
)

// statusFD is the pipe to the supervisor.
const statusFD = 3

// Program is what to start and with which rights.
type Program struct {
	*declaration.Declaration
	// Groups are supplementary groups: those of the declared devices.
	Groups []uint32
	// Keep is how many descriptors after the pipe the program gets.
	Keep int
	// Root is the directory of engine --root, "/" on a machine. Argv[0] is looked for below it first.
	Root string
	// OOM is the program's oom_score_adj.
	OOM int
}

// Exec confines the process and executes the program. It returns only if that was impossible, after it has told the supervisor.
func Exec(p Program) error { return Refuse(become(p)) }

// Refuse tells the supervisor why the program was not started, and returns the reason.
func Refuse(err error) error {
	tell("error " + strings.ReplaceAll(err.Error(), "\n", " "))
	return err
}

// tell writes a line to the supervisor, if there is one.
func tell(line string) { unix.Write(statusFD, []byte(line+"\n")) }

func become(p Program) error {
	runtime.LockOSThread() // rights belong to a thread; the one that calls execve counts
	if len(p.Argv) == 0 {
		return errors.New("argv: is empty")
	}
	machine := filepath.Clean(p.Root) == "/"
	argv := append([]string{executable(p.Root, p.Argv[0])}, p.Argv[1:]...)
	if err := closeOnExec(p.Keep); err != nil {
		return err
	}
	if machine {
		if err := os.WriteFile("/proc/self/oom_score_adj", fmt.Append(nil, p.OOM), 0); err != nil {
			return err
		}
	}
	var domain *landlock
	if machine && !p.NoLandlock {
		var err error
		if domain, err = newLandlock(allowances(p.Declaration)); err != nil {
			return err
		}
	}
	filter, err := seccomp.Program(p.Seccomp)
	if err != nil {
		return err
	}
	if os.Geteuid() == 0 {
		if err := becomeUser(p); err != nil {
			return err
		}
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("no_new_privs: %w", err)
	}
	if domain != nil {
		if err := domain.enforce(); err != nil {
			return err
		}
		tell(fmt.Sprint("landlock ", domain.abi))
	}
	if err := seccomp.Install(filter); err != nil {
		return err
	}
	return fmt.Errorf("%s: %w", argv[0], unix.Exec(argv[0], argv, os.Environ()))
}

// executable is path below root, or path itself if that does not exist: a declaration under engine --root may name a file of the
// host.
func executable(root, path string) string {
	if below := filepath.Join(root, path); below != path {
		if _, err := os.Stat(below); err == nil {
			return below
		}
	}
	return path
}

// closeOnExec leaves the program 0, 1, 2 and the kept descriptors.
func closeOnExec(keep int) error {
	if err := unix.CloseRange(statusFD, statusFD, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return fmt.Errorf("close_range: %w", err)
	}
	if err := unix.CloseRange(uint(statusFD+1+keep), ^uint(0)>>1, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return fmt.Errorf("close_range: %w", err)
	}
	return nil
}

// becomeUser changes from root to the declared user with the declared capabilities, in all sets, and no other. With the uid 0 the
// user stays, and the bounding set alone limits what root is.
func becomeUser(p Program) error {
	wanted, err := capabilities(p.Capabilities)
	if err != nil {
		return err
	}
	for n := 0; ; n++ {
		if wanted.Has(n) {
			continue
		}
		err := unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(n), 0, 0, 0)
		if errors.Is(err, unix.EINVAL) {
			break // the kernel knows no more
		}
		if errors.Is(err, unix.EPERM) && filepath.Clean(p.Root) != "/" {
			break // root of a container without CAP_SETPCAP
		}
		if err != nil {
			return fmt.Errorf("bounding set: %w", err)
		}
	}
	if p.UID == 0 {
		return nil
	}
	if err := unix.Prctl(unix.PR_SET_KEEPCAPS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("keep capabilities: %w", err)
	}
	if err := setIDs(p.UID, p.GID, p.Groups); err != nil {
		return err
	}
	return setCapabilities(wanted)
}
