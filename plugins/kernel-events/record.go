package kernelevents

import (
	"strconv"
	"strings"
	"time"
)

// record is one of the kernel's log.
type record struct {
	priority          uint64 // 8 times the facility, and the severity
	sequence          uint64
	at                time.Duration
	text              string
	subsystem, device string
}

// warning is the least of the severities that become events.
const warning = 4

// severities and facilities are those of syslog(3), by their numbers.
var (
	severities = [...]string{"emergency", "alert", "critical", "error", "warning", "notice", "info", "debug"}
	facilities = [...]string{"kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp"}
)

func (r record) severity() uint64 { return r.priority & 7 }

func (r record) facility() string {
	if n := r.priority >> 3; n < uint64(len(facilities)) {
		return facilities[n]
	}
	return strconv.FormatUint(r.priority>>3, 10)
}

// parse reads a record of /dev/kmsg (Documentation/ABI/testing/dev-kmsg): "4,339,5140900,-;text", and lines of " KEY=value". The kernel
// escapes what is not printable.
func parse(b string) (record, bool) {
	head, body, ok := strings.Cut(b, ";")
	fields := strings.Split(head, ",")
	if !ok || len(fields) < 3 {
		return record{}, false
	}
	r, microseconds := record{}, uint64(0)
	for i, number := range []*uint64{&r.priority, &r.sequence, &microseconds} {
		n, err := strconv.ParseUint(fields[i], 10, 63)
		if err != nil {
			return record{}, false
		}
		*number = n
	}
	r.at = time.Duration(microseconds) * time.Microsecond
	lines := strings.Split(strings.TrimSuffix(body, "\n"), "\n")
	r.text = strings.ToValidUTF8(lines[0], "\uFFFD")
	for _, line := range lines[1:] {
		key, value, _ := strings.Cut(strings.TrimPrefix(line, " "), "=")
		switch value = strings.ToValidUTF8(value, "\uFFFD"); key {
		case "SUBSYSTEM":
			r.subsystem = value
		case "DEVICE":
			// Of a device without a node and an index: "+pci:0000:00:1f.2".
			if named, ok := strings.CutPrefix(value, "+"); ok {
				_, value, _ = strings.Cut(named, ":")
			}
			r.device = value
		}
	}
	return r, true
}

// known are messages of the kernel, by what is in them. The first that fits is it.
var known = []struct{ text, action string }{
	{"blocked for more than", "HungTask"},             // kernel/hung_task.c: "INFO: task %s:%d blocked for more than %ld seconds."
	{"blocked in I/O wait for more than", "HungTask"}, // the same of those that wait for a disk, in its own words since 2026 (73d40c42f6)
	{"BUG: soft lockup", "SoftLockup"},                // kernel/watchdog.c
	{"hard LOCKUP on cpu", "HardLockup"},              // kernel/watchdog.c
	{"detected stall", "Stall"},                       // kernel/rcu/tree_stall.h: "detected stalls on", "self-detected stall on", "detected expedited stalls"
	{"detected expedited stall", "Stall"},
	{"[Hardware Error]", "MachineCheck"}, // arch/x86/kernel/cpu/mce, drivers/firmware/efi/cper.c
	{"AER:", "PCIeError"},                // drivers/pci/pcie/aer.c
	{"PCIe Bus Error", "PCIeError"},
	{"BUG:", "Oops"},
	{"Oops:", "Oops"},
	{"Internal error:", "Oops"}, // arch/arm64/kernel/traps.c
	{"general protection fault", "Oops"},
	{"WARNING: CPU:", "Warning"}, // kernel/panic.c
	{", CPU#", "Warning"},        // the same since Linux 6.19: "WARNING: %s:%d at %pS, CPU#%d: %s/%d"
}

// action is what the kernel says. What others write into its log is not taken for it.
func (r record) action() string {
	if r.facility() == facilities[0] {
		for _, k := range known {
			if strings.Contains(r.text, k.text) {
				return k.action
			}
		}
	}
	return "Logged"
}
