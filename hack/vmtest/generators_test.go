package vmtest_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	eventspb "github.com/cosi-os/cosi/api/cosi/events/v1alpha1"
	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	"github.com/cosi-os/cosi/hack/vmtest"
	"github.com/cosi-os/cosi/tools/client"
	"github.com/cosi-os/cosi/tools/qemu/node"
)

// TestGenerators: what happens on a node is told by the generators, and of whom; by eBPF, and where the kernel forbids that by the next
// best way, which says what it does not hear.
func TestGenerators(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ name, commandLine string }{{"eBPF", ""}, {"WithoutEBPF", "lockdown=confidentiality"}} {
		t.Run(tc.name, func(t *testing.T) {
			n := vmtest.Start(t, vmtest.Options{Definition: "test", Boot: node.Kernel, CommandLine: tc.commandLine})
			n.Ready(t)
			t.Run("Processes", func(t *testing.T) { checkProcessEvents(t, n, tc.commandLine == "") })
			t.Run("Kernel", func(t *testing.T) { checkKernelEvents(t, n) })
			t.Run("Pressure", func(t *testing.T) { checkPressureEvents(t, n) })
			t.Run("Links", func(t *testing.T) { checkLinkEvents(t, n, tc.commandLine == "") })
		})
	}
}

// checkProcessEvents: a plugin crashes, executes a program from memory as it starts again, and is killed for want of memory.
func checkProcessEvents(t *testing.T, n *vmtest.Node, ebpf bool) {
	mode, unavailable := "tracepoint", 0
	if !ebpf {
		mode, unavailable = "netlink", 1
	}
	status := generator(t, n, "process-events", mode)
	if u := status.GetUnavailable(); len(u) != unavailable || len(u) > 0 && u[0].GetWhy() == "" || (status.GetMessage() == "") != ebpf {
		t.Errorf("generator %v; want %d modes unavailable, and said why and what is not heard", status, unavailable)
	}
	n.Apply(t, "metadata: {type: ProbeRequests.test.cosi.dev, id: abort}\nspec: {action: ABORT}\n")
	e := &eventspb.ProcessEvent{}
	await(t, n, "processevents", e, func() bool { return e.GetAction() == "Crashed" })
	// The process is named for the descriptor that it was executed from.
	if e.GetPlugin() != "probe" || e.GetSignal() != "SIGABRT" || e.GetProcess() != "3" || e.GetCgroup() != "/cosi/plugins/probe" || (e.GetMessage() == "sent by a thread") != ebpf {
		t.Errorf("crash: %v", e)
	}
	if ebpf {
		await(t, n, "processevents", e, func() bool { return e.GetAction() == "UnexpectedExec" })
		if e.GetPlugin() != "probe" || e.GetExecutable() != "/proc/self/fd/3" {
			t.Errorf("unexpected exec: %v", e)
		}
	}
	n.Apply(t, gaugeRequest("starve", "starve: probe"))
	await(t, n, "processevents", e, func() bool { return e.GetAction() == "OOMKilled" })
	if e.GetPlugin() != "probe" || e.GetSignal() != "SIGKILL" || e.GetTime() == nil || e.GetBoottimeNs() == 0 {
		t.Errorf("OOM kill: %v", e)
	}
	for _, event := range list(t, n, "processevents") {
		other := &eventspb.ProcessEvent{}
		decode(t, event, other)
		if other.GetPlugin() != "probe" || strings.HasPrefix(other.GetAction(), "Resync") {
			t.Errorf("an event that nobody provoked: %v", other)
		}
	}
	// The status comes after the event.
	n.Until(t, "generators", "process-events", status, func(*resourcepb.Metadata) bool { return status.GetRings() >= 2 })
	if status.GetLost() > 0 {
		t.Errorf("generator: %v; want that none is lost", status)
	}
}

// checkKernelEvents: a warning in the kernel's log is an event, and a notice before it is none.
func checkKernelEvents(t *testing.T, n *vmtest.Node) {
	const notice, warning = "generators: a notice", "generators: a warning"
	for id, message := range map[string]string{"notice": "<5>" + notice, "warning": "<4>" + warning} {
		n.Converged(t, n.Apply(t, gaugeRequest(id, fmt.Sprintf("kernel_message: %q", message)))...)
	}
	e := &eventspb.KernelEvent{}
	await(t, n, "kernelevents", e, func() bool { return e.GetMessage() == warning })
	if e.GetAction() != "Logged" || e.GetSeverity() != "warning" || e.GetFacility() != "user" || e.GetSequence() == 0 || e.GetBoottimeNs() == 0 {
		t.Errorf("warning: %v", e)
	}
	await(t, n, "kernelevents", e, func() bool { return e.GetFacility() == "kern" }) // what the kernel said while it started, or of the OOM kill
	for _, event := range list(t, n, "kernelevents") {
		decode(t, event, e)
		if e.GetMessage() == notice || !slices.Contains([]string{"emergency", "alert", "critical", "error", "warning"}, e.GetSeverity()) {
			t.Errorf("event of less than a warning: %v", e)
		}
	}
	generator(t, n, "kernel-events", "kmsg")
}

// await watches a kind of event until one is as wanted; it is in spec then.
func await(t *testing.T, n *vmtest.Node, kind string, spec proto.Message, wanted func() bool) {
	t.Helper()
	err := n.Client.Watch(n.Patience(t, moment), n.Kind(t, kind), "", &resourcepb.WatchOptions{BootstrapContents: true}, func(e *resourcepb.Event) error {
		if e.GetEventType() != resourcepb.EventType_CREATED {
			return nil
		}
		proto.Reset(spec)
		if err := proto.Unmarshal(e.GetResource().GetSpec().GetProtoSpec(), spec); err != nil {
			return err
		}
		if wanted() {
			return client.ErrStop
		}
		return nil
	})
	if err != nil {
		t.Fatalf("%s: %v; the last was %v", kind, err, spec)
	}
}

// list returns all resources of a kind.
func list(t *testing.T, n *vmtest.Node, kind string) []*resourcepb.Resource {
	t.Helper()
	all, err := n.Client.List(n.Patience(t, moment), n.Kind(t, kind))
	if err != nil {
		t.Fatal(err)
	}
	return all
}
