package kernelevents

import (
	"testing"
	"time"
	"unicode/utf8"
)

func TestParse(t *testing.T) {
	for text, want := range map[string]record{
		"4,339,5140900,-;r8169: link is down\n SUBSYSTEM=pci\n DEVICE=+pci:0000:00:1f.2\n": {
			priority: 4, sequence: 339, at: 5140900 * time.Microsecond, text: "r8169: link is down", subsystem: "pci", device: "0000:00:1f.2",
		},
		"3,1,0,-;I/O error\n SUBSYSTEM=block\n DEVICE=b8:0\n":   {priority: 3, sequence: 1, text: "I/O error", subsystem: "block", device: "b8:0"},
		"12,2,7,-,caller=T1;said by a person\n":                 {priority: 12, sequence: 2, at: 7000, text: "said by a person"},
		"4,3,0,c;half; of a line":                               {priority: 4, sequence: 3, text: "half; of a line"},
		"4,4,0,-;no key\n OTHER=x\n DEVICE=+odd\n rubbish\n":    {priority: 4, sequence: 4, text: "no key"},
		"191,5,0,-;of a facility that has no name, and debug\n": {priority: 191, sequence: 5, text: "of a facility that has no name, and debug"},
	} {
		if got, ok := parse(text); !ok || got != want {
			t.Errorf("parse(%q) = %+v, %v; want %+v", text, got, ok, want)
		}
	}
	for _, text := range []string{"", "text", "4,339;text", "x,1,2,-;text", "4,-1,2,-;text", "4,1,2,-"} {
		if got, ok := parse(text); ok {
			t.Errorf("parse(%q) = %+v; want that it is no record", text, got)
		}
	}
}

// FuzzParse: what is read is text, and can be named.
func FuzzParse(f *testing.F) {
	f.Add("4,339,5140900,-;text\n SUBSYSTEM=pci\n DEVICE=+pci:0000:00:1f.2\n")
	f.Fuzz(func(t *testing.T, text string) {
		r, ok := parse(text)
		if !ok {
			return
		}
		for _, text := range []string{r.text, r.subsystem, r.device} {
			if !utf8.ValidString(text) {
				t.Errorf("%q of %q", text, r.text)
			}
		}
		if severities[r.severity()] == "" || r.facility() == "" || r.action() == "" {
			t.Errorf("record %+v", r)
		}
	})
}

func TestWhatTheKernelSaysIsRecognised(t *testing.T) {
	for text, want := range map[string]string{
		"INFO: task kworker/0:1:12 blocked for more than 120 seconds.":                         "HungTask",
		"INFO: task dd:456 blocked in I/O wait for more than 120 seconds.":                     "HungTask",
		"watchdog: BUG: soft lockup - CPU#0 stuck for 26s! [gauge:81]":                         "SoftLockup",
		"watchdog: Watchdog detected hard LOCKUP on cpu 1":                                     "HardLockup",
		"rcu: INFO: rcu_preempt self-detected stall on CPU":                                    "Stall",
		"rcu: INFO: rcu_sched detected stalls on CPUs/tasks:":                                  "Stall",
		"rcu: INFO: rcu_preempt detected expedited stalls on CPUs/tasks: {":                    "Stall",
		"mce: [Hardware Error]: Machine check events logged":                                   "MachineCheck",
		"pcieport 0000:00:1c.0: AER: Corrected error message received from 0000:00:1c.0":       "PCIeError",
		"nvme 0000:01:00.0: PCIe Bus Error: severity=Corrected, type=Physical Layer":           "PCIeError",
		"BUG: kernel NULL pointer dereference, address: 0000000000000000":                      "Oops",
		"Internal error: Oops: 0000000096000004 [#1] SMP":                                      "Oops",
		"Oops: general protection fault, probably for non-canonical address 0xdead: 0000 [#1]": "Oops",
		"WARNING: kernel/smp.c:807 at smp_call_function_many_cond+0x42b/0x4a0, CPU#0: init/1":  "Warning",
		"WARNING: CPU: 0 PID: 1 at kernel/smp.c:807 smp_call_function_many_cond+0x42b/0x4a0":   "Warning",
		"r8169 0000:02:00.0 eth0: Link is Down":                                                "Logged",
	} {
		if got := (record{priority: 4, text: text}).action(); got != want {
			t.Errorf("%q is %s; want %s", text, got, want)
		}
		if got := (record{priority: 1<<3 | 4, text: text}).action(); got != "Logged" {
			t.Errorf("%q by a process is %s; want Logged", text, got)
		}
	}
}
