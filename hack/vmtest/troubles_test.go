package vmtest_test

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	eventspb "github.com/cosi-os/cosi/api/cosi/events/v1alpha1"
	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	"github.com/cosi-os/cosi/hack/vmtest"
	"github.com/cosi-os/cosi/tools/qemu"
)

// impatient are kernel arguments for who does not want to wait until the kernel speaks of what goes on: of a task that hangs after 5 to 10 s, not
// after two minutes, and of a processor that is locked up after 4 s, not 20.
const impatient = "sysctl.kernel.hung_task_timeout_secs=5 sysctl.kernel.watchdog_thresh=2"

// holdUp has whoever writes to a disk wait. checkTroubles ends that, as QEMU does whenever a disk is plugged in or out.
func holdUp(t *testing.T, n *vmtest.Node) []*resourcepb.Resource {
	t.Helper()
	limitWrites(t, n, "stuck", 1)
	return n.Apply(t, mountPoint("stuck", "/dev/vdc"))
}

// checkTroubles: what the kernel says of trouble with itself or with hardware is an event of its own kind. A hard lockup nobody can make here: it is
// found by interrupts of the processor's counters, which one that is emulated lacks.
func checkTroubles(t *testing.T, n *vmtest.Node, stuck []*resourcepb.Resource) {
	trouble(t, n, "HungTask", "error", `^INFO: task .+:\d+ blocked (in I/O wait )?for more than \d+ seconds`)
	limitWrites(t, n, "stuck", 0)
	n.Converged(t, stuck...)

	// The device that found the error is the port itself.
	answer := monitor(t, n, "pcie_aer_inject_error port0 BAD_TLP")
	var slot, function int
	if _, err := fmt.Sscanf(answer[strings.LastIndex(answer, " ")+1:], "%x.%x", &slot, &function); err != nil {
		t.Fatalf("the monitor says %q: %v", answer, err)
	}
	port := fmt.Sprintf("0000:00:%02x.%d", slot, function)
	if e := trouble(t, n, "PCIeError", "warning", `^pcieport `+port+`: PCIe Bus Error: severity=Correct`); e.GetSubsystem() != "pci" || e.GetDevice() != port {
		t.Errorf("event %v; want it of the device %s", e, port)
	}

	// On ARM it is the firmware that tells of machine checks, which QEMU's does not. Under KVM the processor is the host's, and one of AMD's has a
	// kernel panic.
	if vmtest.Arch() == qemu.AMD64 && !vmtest.Host(t).KVM {
		// Found while memory was scrubbed, uncorrected, and nobody needs to act: MCi_STATUS VAL, UC, EN, S and code c0; MCG_STATUS MCIP and RIPV.
		const bank, status = 9, 0xb1000000000000c0
		if answer := monitor(t, n, fmt.Sprintf("mce 0 %d %#x 5 0 0", bank, uint64(status))); answer != "" {
			t.Fatalf("the monitor says %q", answer)
		}
		trouble(t, n, "MachineCheck", "emergency", fmt.Sprintf(`CPU 0: Machine Check Exception: 5 Bank %d: %x$`, bank, uint64(status)))
	}

	rage(t, n, "lock-up", "lock_up: 6")
	trouble(t, n, "SoftLockup", "emergency", `BUG: soft lockup - CPU#\d+ stuck for \d+s! \[.+:\d+\]`)
}

// trouble waits until the kernel has spoken.
func trouble(t *testing.T, n *vmtest.Node, action, severity, message string) *eventspb.KernelEvent {
	t.Helper()
	e, text := &eventspb.KernelEvent{}, regexp.MustCompile(message)
	await(t, n, "kernelevents", e, func() bool { return e.GetAction() == action && text.MatchString(e.GetMessage()) })
	if e.GetSeverity() != severity || e.GetFacility() != "kern" || e.GetBoottimeNs() == 0 || e.GetSequence() == 0 {
		t.Errorf("event %v; want severity %q of the kernel, with its time", e, severity)
	}
	return e
}

// monitor has QEMU do what QMP has no command for, and returns what it says.
func monitor(t *testing.T, n *vmtest.Node, command string) (answer string) {
	t.Helper()
	if err := n.Monitor.Execute(n.Patience(t, moment), "human-monitor-command", map[string]string{"command-line": command}, &answer); err != nil {
		t.Fatalf("%s: %v", command, err)
	}
	return strings.TrimSpace(answer)
}
