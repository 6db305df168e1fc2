package launch

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/cosi-os/cosi/engine/capability"
)

// capabilities turns names into a set.
func capabilities(names []string) (capability.Set, error) {
	var set capability.Set
	for _, name := range names {
		n, ok := capability.Number(name)
		if !ok {
			return 0, fmt.Errorf("capabilities: %q is not one of Linux", name)
		}
		set |= 1 << n
	}
	return set, nil
}

// setIDs changes groups, gid and uid of the calling thread alone: the wrappers of package syscall would change them in every thread,
// and execve ends the others.
func setIDs(uid, gid uint32, groups []uint32) error {
	var list unsafe.Pointer
	if len(groups) > 0 {
		list = unsafe.Pointer(&groups[0])
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(groups)), uintptr(list), 0); errno != 0 {
		return fmt.Errorf("setgroups %v: %w", groups, errno)
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESGID, uintptr(gid), uintptr(gid), uintptr(gid)); errno != 0 {
		return fmt.Errorf("setresgid %d: %w", gid, errno)
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, uintptr(uid), uintptr(uid), uintptr(uid)); errno != 0 {
		return fmt.Errorf("setresuid %d: %w", uid, errno)
	}
	return nil
}

// setCapabilities makes set the permitted, effective, inheritable and ambient set of the calling thread.
func setCapabilities(set capability.Set) error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	low, high := uint32(set), uint32(set>>32)
	data := [2]unix.CapUserData{
		{Effective: low, Permitted: low, Inheritable: low},
		{Effective: high, Permitted: high, Inheritable: high},
	}
	if err := unix.Capset(&header, &data[0]); err != nil {
		return fmt.Errorf("capset %v: %w", set.Names(), err)
	}
	for n := range 64 {
		if !set.Has(n) {
			continue
		}
		if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, uintptr(n), 0, 0); err != nil {
			return fmt.Errorf("ambient %v: %w", capability.Set(1<<n).Names(), err)
		}
	}
	return nil
}
