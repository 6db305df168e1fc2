package vmtest_test

import (
	"slices"
	"strings"
	"testing"

	eventspb "github.com/cosi-os/cosi/api/cosi/events/v1alpha1"
	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	servicepb "github.com/cosi-os/cosi/api/cosi/service/v1alpha1"
	"github.com/cosi-os/cosi/hack/soak/hotplug"
	"github.com/cosi-os/cosi/hack/vmtest"
)

// checkWithoutBTF: generators that start while the kernel's types are hidden, as checkMountEvents leaves them, hear without eBPF where their
// programs read the kernel's structures. It shows them again.
func checkWithoutBTF(t *testing.T, n *vmtest.Node) {
	e := &eventspb.BlockEvent{}
	last := newest(t, n, "blockevents", e)
	gauge(t, n, "no-btf-block", "kill: block-events")
	gauge(t, n, "no-btf-process", "kill: process-events")
	fallen(t, n, "block-events", "netlink", "/sys/kernel/btf", "fentry", "kprobe")
	await(t, n, "blockevents", e, func() bool { return e.GetAction() == "Resynchronised" && e.GetBoottimeNs() > last })
	plugDisks(t, n, hotplug.SCSI, 100, 2, 0)
	fallen(t, n, "process-events", "netlink", "/sys/kernel/btf", "tracepoint")
	crash(t, n, "no-btf")
	gauge(t, n, "btf", "unmount: /sys/kernel/btf")
}

// checkWithoutCapability: generators that may not use eBPF hear without it, and tell of the same. (mount-events has CAP_SYS_ADMIN, with which the
// kernel lets it.) said is how many events of power there have been.
func checkWithoutCapability(t *testing.T, n *vmtest.Node, said int) {
	for _, plugin := range []string{"link-events", "power-events", "process-events"} {
		gauge(t, n, "deprive-"+plugin, "kill: "+plugin+", without: [CAP_BPF]")
	}
	fallen(t, n, "link-events", "netlink", "not permitted", "fentry", "kprobe")
	unplug(t, n)
	fallen(t, n, "process-events", "netlink", "not permitted", "tracepoint")
	crash(t, n, "no-capability")
	fallen(t, n, "power-events", "evdev", "not permitted", "fentry", "kprobe")
	checkPress(t, n, "evdev", said+2) // after one that says that it was restarted
}

// checkSwitchedOff: where the kernel runs no programs at functions, which it does not say when they are attached, generators hear otherwise.
func checkSwitchedOff(t *testing.T, n *vmtest.Node) {
	for plugin, mode := range map[string]string{"block-events": "netlink", "link-events": "netlink", "mount-events": "poll", "power-events": "evdev"} {
		fallen(t, n, plugin, mode, "kernel.ftrace_enabled is 0", "fentry", "kprobe")
	}
	if u := generator(t, n, "process-events", "tracepoint").GetUnavailable(); len(u) > 0 {
		t.Errorf("process-events: unavailable: %v", u)
	}
}

// fallen waits until a generator hears in a mode, and checks what it says of those before; of a plugin that was deprived of CAP_BPF, that the
// kernel says so as well.
func fallen(t *testing.T, n *vmtest.Node, plugin, mode, why string, unavailable ...string) {
	t.Helper()
	// What it said before it was killed may be of the same mode.
	status := &eventspb.GeneratorStatus{}
	n.Until(t, "generators", plugin, status, func(*resourcepb.Metadata) bool {
		u := status.GetUnavailable()
		return status.GetMode() == mode && len(u) > 0 && strings.Contains(u[len(u)-1].GetWhy(), why)
	})
	var modes []string
	_, always := byFunctions(t, n)
	for _, u := range status.GetUnavailable() {
		modes = append(modes, u.GetMode())
		if never := slices.Contains(always, u.GetMode()) && strings.Contains(u.GetWhy(), "preempts"); !never && !strings.Contains(u.GetWhy(), why) {
			t.Errorf("%s: %s is unavailable because of %q; want a word of %q", plugin, u.GetMode(), u.GetWhy(), why)
		}
	}
	if !slices.Equal(modes, unavailable) {
		t.Errorf("%s: %q are unavailable; want %q", plugin, modes, unavailable)
	}
	process := &servicepb.PluginStatus{}
	n.Until(t, "plugins", plugin, process, func(*resourcepb.Metadata) bool { return process.GetConfinement().GetSeccompFilters() >= 2 })
	if has, want := slices.Contains(process.GetConfinement().GetCapabilities(), "CAP_BPF"), why != "not permitted"; has != want {
		t.Errorf("%s: CAP_BPF %v; want %v", plugin, has, want)
	}
}

// crash has the plugin probe end by SIGABRT, which is an event.
func crash(t *testing.T, n *vmtest.Node, request string) {
	t.Helper()
	e := &eventspb.ProcessEvent{}
	last := newest(t, n, "processevents", e)
	n.Apply(t, "metadata: {type: ProbeRequests.test.cosi.dev, id: "+request+"}\nspec: {action: ABORT}\n")
	await(t, n, "processevents", e, func() bool { return e.GetAction() == "Crashed" && e.GetBoottimeNs() > last })
	if e.GetPlugin() != "probe" || e.GetSignal() != "SIGABRT" {
		t.Errorf("crash: %v", e)
	}
}
