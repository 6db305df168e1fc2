package launch

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/cosi-os/cosi/api/declaration"
)

const (
	// toRead a file or list a directory.
	toRead = unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_READ_DIR
	// toWrite below a directory: everything but making device nodes.
	toWrite = toRead | unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_REMOVE_DIR | unix.LANDLOCK_ACCESS_FS_REMOVE_FILE |
		unix.LANDLOCK_ACCESS_FS_MAKE_DIR | unix.LANDLOCK_ACCESS_FS_MAKE_REG | unix.LANDLOCK_ACCESS_FS_MAKE_SOCK |
		unix.LANDLOCK_ACCESS_FS_MAKE_FIFO | unix.LANDLOCK_ACCESS_FS_MAKE_SYM | unix.LANDLOCK_ACCESS_FS_REFER | unix.LANDLOCK_ACCESS_FS_TRUNCATE
	toUseDevice = toRead | unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_IOCTL_DEV
	// ofFiles are the rights that a rule on a file may hold.
	ofFiles = unix.LANDLOCK_ACCESS_FS_EXECUTE | unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_READ_FILE |
		unix.LANDLOCK_ACCESS_FS_TRUNCATE | unix.LANDLOCK_ACCESS_FS_IOCTL_DEV
)

// allowance is access to a file or a tree.
type allowance struct {
	path   string
	access uint64
}

// allowances lists what a process of the declaration may reach. A pattern of devices opens the directory it looks into, because
// nodes come and go; which of them it may open is then up to their group.
func allowances(d *declaration.Declaration) []allowance {
	all := []allowance{
		{d.Argv[0], unix.LANDLOCK_ACCESS_FS_EXECUTE | unix.LANDLOCK_ACCESS_FS_READ_FILE},
		{"/etc", toRead},
		{"/usr/lib/os-release", toRead}, // /etc/os-release points there
		{"/run/cosi/network", toRead},   // /etc/resolv.conf points there
		{"/proc/self", toRead},
		{"/dev/null", toUseDevice},
		{"/dev/zero", toUseDevice},
		{"/dev/random", toUseDevice},
		{"/dev/urandom", toUseDevice},
	}
	for _, p := range d.Paths {
		access := uint64(toRead)
		switch {
		case p.Write:
			access = toWrite
		case p.List:
			access = unix.LANDLOCK_ACCESS_FS_READ_DIR
		}
		all = append(all, allowance{p.Path, access})
	}
	for _, device := range d.Devices {
		path := device.Path
		for strings.ContainsAny(path, `*?[\`) {
			path = filepath.Dir(path)
		}
		access := uint64(toUseDevice)
		if !device.Write {
			access &^= unix.LANDLOCK_ACCESS_FS_WRITE_FILE
		}
		all = append(all, allowance{path, access})
	}
	return all
}

// landlock is a ruleset that has not been enforced yet.
type landlock struct {
	abi int
	fd  int
}

// newLandlock makes the ruleset as far as the kernel knows it: rights of a later ABI are left out. Paths that do not exist are
// skipped. It returns nil without an error where the kernel has no Landlock.
func newLandlock(all []allowance) (*landlock, error) {
	version, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if errno == unix.ENOSYS || errno == unix.EOPNOTSUPP {
		return nil, nil
	}
	if errno != 0 {
		return nil, fmt.Errorf("landlock: %w", errno)
	}
	abi := int(version)
	attr, size := rulesetOf(abi)
	fd, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&attr)), size, 0)
	if errno != 0 {
		return nil, fmt.Errorf("landlock: create ruleset: %w", errno)
	}
	l := &landlock{abi: abi, fd: int(fd)}
	for _, a := range all {
		if err := l.allow(a.path, a.access&attr.Handled_access_fs); err != nil && !errors.Is(err, fs.ErrNotExist) {
			unix.Close(l.fd)
			return nil, fmt.Errorf("landlock: allow %s: %w", a.path, err)
		}
	}
	return l, nil
}

// rulesetOf returns what is handled with an ABI, and how long the kernel of that ABI takes the structure to be.
func rulesetOf(abi int) (unix.LandlockRulesetAttr, uintptr) {
	attr := unix.LandlockRulesetAttr{Handled_access_fs: unix.LANDLOCK_ACCESS_FS_MAKE_SYM<<1 - 1}
	if abi >= 2 {
		attr.Handled_access_fs |= unix.LANDLOCK_ACCESS_FS_REFER
	}
	if abi >= 3 {
		attr.Handled_access_fs |= unix.LANDLOCK_ACCESS_FS_TRUNCATE
	}
	if abi >= 5 {
		attr.Handled_access_fs |= unix.LANDLOCK_ACCESS_FS_IOCTL_DEV
	}
	switch {
	case abi >= 6:
		attr.Scoped = unix.LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET | unix.LANDLOCK_SCOPE_SIGNAL
		return attr, unsafe.Offsetof(attr.Quiet_access_fs)
	case abi >= 4:
		return attr, unsafe.Offsetof(attr.Scoped)
	}
	return attr, unsafe.Offsetof(attr.Handled_access_net)
}

func (l *landlock) allow(path string, access uint64) error {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var stat unix.Stat_t
	if err := unix.Fstat(fd, &stat); err != nil {
		return err
	}
	if stat.Mode&unix.S_IFMT != unix.S_IFDIR {
		access &= ofFiles
	}
	rule := unix.LandlockPathBeneathAttr{Allowed_access: access, Parent_fd: int32(fd)}
	_, _, errno := unix.Syscall6(unix.SYS_LANDLOCK_ADD_RULE, uintptr(l.fd), unix.LANDLOCK_RULE_PATH_BENEATH, uintptr(unsafe.Pointer(&rule)), 0, 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// enforce puts the ruleset on the calling thread, which has no_new_privs.
func (l *landlock) enforce() error {
	if _, _, errno := unix.RawSyscall(unix.SYS_LANDLOCK_RESTRICT_SELF, uintptr(l.fd), 0, 0); errno != 0 {
		return fmt.Errorf("landlock: restrict: %w", errno)
	}
	return nil
}
