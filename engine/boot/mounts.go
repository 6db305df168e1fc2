// Package boot brings the machine from the kernel's first process to a root that plugins can run on, and takes it down again. PID 1
// calls it, on a machine only.
package boot

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// mount is a call of mount(2).
type mount struct {
	source, target, fstype string
	flags                  uintptr
	data                   string
	// optional: the kernel may not know the file system, or the directory may not be there.
	optional bool
}

const quiet = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC

// kernelMounts are what the kernel offers, mounted first of all.
var kernelMounts = []mount{
	{source: "proc", target: "/proc", fstype: "proc", flags: quiet},
	{source: "sysfs", target: "/sys", fstype: "sysfs", flags: quiet},
	{source: "devtmpfs", target: "/dev", fstype: "devtmpfs", flags: unix.MS_NOSUID | unix.MS_NOEXEC, data: "mode=0755"},
}

// systemMounts follow in the final root.
var systemMounts = []mount{
	{source: "devpts", target: "/dev/pts", fstype: "devpts", flags: unix.MS_NOSUID | unix.MS_NOEXEC, data: "mode=0620,ptmxmode=0666"},
	{source: "tmpfs", target: "/dev/shm", fstype: "tmpfs", flags: quiet, data: "mode=1777"},
	{source: "cgroup2", target: "/sys/fs/cgroup", fstype: "cgroup2", flags: quiet, data: "nsdelegate,memory_recursiveprot"},
	{source: "bpf", target: "/sys/fs/bpf", fstype: "bpf", flags: quiet, data: "mode=0700", optional: true},
	{source: "securityfs", target: "/sys/kernel/security", fstype: "securityfs", flags: quiet, optional: true},
	{source: "pstore", target: "/sys/fs/pstore", fstype: "pstore", flags: quiet, optional: true},
	{source: "tracefs", target: "/sys/kernel/tracing", fstype: "tracefs", flags: quiet, data: "mode=0700", optional: true},
}

// memoryMounts are what a node may write to that has no disk. They are made before anything is in them.
var memoryMounts = []mount{
	{source: "tmpfs", target: "/run", fstype: "tmpfs", flags: unix.MS_NOSUID | unix.MS_NODEV, data: "mode=0755"},
	{source: "tmpfs", target: "/tmp", fstype: "tmpfs", flags: unix.MS_NOSUID | unix.MS_NODEV, data: "mode=1777"},
	{source: "tmpfs", target: "/var", fstype: "tmpfs", flags: unix.MS_NOSUID | unix.MS_NODEV, data: "mode=0755"},
	{source: "tmpfs", target: "/etc", fstype: "tmpfs", flags: unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, data: "mode=0755"},
}

// do mounts m, making its target if that is possible.
func (m mount) do() error {
	err := os.Mkdir(m.target, 0o755)
	if err != nil && !errors.Is(err, fs.ErrExist) && !m.optional && !errors.Is(err, unix.EROFS) {
		return err
	}
	if err := unix.Mount(m.source, m.target, m.fstype, m.flags, m.data); err != nil && !m.optional {
		return fmt.Errorf("mount %s on %s: %w", m.fstype, m.target, err)
	}
	return nil
}

func mountAll(all []mount) error {
	for _, m := range all {
		if err := m.do(); err != nil {
			return err
		}
	}
	return nil
}
