package processevents

import (
	"context"
	"testing"

	eventspb "github.com/cosi-os/cosi/api/cosi/events/v1alpha1"
	"github.com/cosi-os/cosi/engine/runtime/plugintest"
	"github.com/cosi-os/cosi/plugins/internal/doorbell"
	"github.com/cosi-os/cosi/plugins/internal/doorbell/doorbelltest"
	"github.com/cosi-os/cosi/sdk"
)

// start runs the plugin until the test ends.
func start(t *testing.T, r *plugintest.Runtime, bell *doorbell.Bell[note]) {
	t.Helper()
	t.Setenv(sdk.EnvEndpoint, r.Endpoint)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); _ = sdk.Run(ctx, plugin(bell)) }()
	t.Cleanup(func() { cancel(); <-done })
	r.WaitReady()
}

func TestEvents(t *testing.T) {
	r := plugintest.Start(t, declared)
	line := doorbelltest.NewLine[note]()
	start(t, r, line.Bell(doorbell.Tracepoint))

	event, status := &eventspb.ProcessEvent{}, &eventspb.GeneratorStatus{}
	line.Notes <- note{at: 7, what: crashed, pid: 71, code: 11, comm: "plugins", cgroup: "/cosi/plugins/mount"}
	r.Wait("the crash is there", func() bool { return r.Get(doorbell.ID(1), event) != nil })
	if event.GetAction() != "Crashed" || event.GetPlugin() != "mount" || event.GetProcess() != "plugins" || event.GetPid() != 71 || event.GetBoottimeNs() != 7 {
		t.Errorf("event %v", event)
	}
	line.Lost <- 2
	r.Wait("the loss is an event", func() bool { return r.Get(doorbell.ID(2), event) != nil && event.GetAction() == "Resynchronised" })
	r.Wait("and counted", func() bool {
		return r.Get(name, status) != nil && status.GetMode() == "tracepoint" && status.GetRings() == 1 && status.GetLost() == 2
	})
}

// What crashes again and again is one event, and one that crashes meanwhile is another.
func TestAStormIsMergedByWhatHappensToWhom(t *testing.T) {
	g := generator(nil)
	keys := map[string]bool{}
	for _, e := range []*eventspb.ProcessEvent{
		{Action: "Crashed", Cgroup: "/a", Process: "x", Signal: "SIGSEGV", Pid: 1}, {Action: "Crashed", Cgroup: "/a", Process: "x", Signal: "SIGSEGV", Pid: 2},
		{Action: "Crashed", Cgroup: "/a", Process: "y", Signal: "SIGSEGV"}, {Action: "Crashed", Cgroup: "/b", Process: "x", Signal: "SIGSEGV"},
		{Action: "OOMKilled", Cgroup: "/a", Process: "x", Signal: "SIGKILL"},
	} {
		keys[g.Ring.Same[0](e)] = true
	}
	if len(keys) != 4 {
		t.Errorf("keys %v; want that only the same crash of the same program is merged", keys)
	}
}
