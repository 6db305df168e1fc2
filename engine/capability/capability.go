// Package capability names the capabilities of Linux. The launcher turns names into numbers, the supervisor the sets of
// /proc/PID/status into names.
package capability

import (
	"slices"
	"strconv"
)

// Set is a set of capabilities: bit N is capability N.
type Set uint64

// names by number, from linux/capability.h of 6.12.
var names = []string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID", "CAP_SETUID",
	"CAP_SETPCAP", "CAP_LINUX_IMMUTABLE", "CAP_NET_BIND_SERVICE", "CAP_NET_BROADCAST", "CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_IPC_LOCK",
	"CAP_IPC_OWNER", "CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_CHROOT", "CAP_SYS_PTRACE", "CAP_SYS_PACCT", "CAP_SYS_ADMIN",
	"CAP_SYS_BOOT", "CAP_SYS_NICE", "CAP_SYS_RESOURCE", "CAP_SYS_TIME", "CAP_SYS_TTY_CONFIG", "CAP_MKNOD", "CAP_LEASE", "CAP_AUDIT_WRITE",
	"CAP_AUDIT_CONTROL", "CAP_SETFCAP", "CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG", "CAP_WAKE_ALARM", "CAP_BLOCK_SUSPEND",
	"CAP_AUDIT_READ", "CAP_PERFMON", "CAP_BPF", "CAP_CHECKPOINT_RESTORE",
}

// Number returns the number of a capability; ok is false if there is none of that name.
func Number(name string) (n int, ok bool) {
	n = slices.Index(names, name)
	return n, n >= 0
}

// Has reports whether capability n is in s.
func (s Set) Has(n int) bool { return n >= 0 && n < 64 && s&(1<<n) != 0 }

// Names lists s by number. A capability newer than this list is called by its number: "CAP_41".
func (s Set) Names() []string {
	var out []string
	for n := range 64 {
		switch {
		case !s.Has(n):
		case n < len(names):
			out = append(out, names[n])
		default:
			out = append(out, "CAP_"+strconv.Itoa(n))
		}
	}
	return out
}
