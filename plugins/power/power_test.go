package power

import (
	"context"
	"testing"

	powerpb "github.com/cosi-os/cosi/api/cosi/power/v1alpha1"
	"github.com/cosi-os/cosi/engine/runtime/plugintest"
	"github.com/cosi-os/cosi/sdk"
)

// start runs the plugin with a clock that stands still.
func start(t *testing.T) (*plugintest.Runtime, *stillClock) {
	t.Helper()
	r, c := plugintest.Start(t, declared), newStillClock()
	run(t, r, plugin(c))
	return r, c
}

// run runs a plugin until the test or end ends it.
func run(t *testing.T, r *plugintest.Runtime, p sdk.Plugin) (end func()) {
	t.Helper()
	t.Setenv(sdk.EnvEndpoint, r.Endpoint)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); _ = sdk.Run(ctx, p) }()
	end = func() { cancel(); <-done }
	t.Cleanup(end)
	r.WaitReady()
	return end
}

func waitFor(t *testing.T, r *plugintest.Runtime, id, reason string) *powerpb.ShutdownStatus {
	t.Helper()
	st := &powerpb.ShutdownStatus{}
	r.Wait(id+" is "+reason, func() bool { return r.Get(id, st) != nil && st.GetReason() == reason })
	return st
}

func TestRequestIsActedOnOnce(t *testing.T) {
	r, _ := start(t)
	request := &powerpb.ShutdownRequest{Action: powerpb.ShutdownRequest_REBOOT, Reason: "new kernel"}
	r.Apply("now", request)
	st := waitFor(t, r, "now", reasonDraining)
	if st.GetAction() != powerpb.ShutdownRequest_REBOOT || st.GetMessage() != "reboot: new kernel" || !st.GetReady() || st.GetObservedVersion() != "1" {
		t.Errorf("status = %v", st)
	}
	before := r.Get("now", st).GetVersion()
	if before != "2" {
		t.Errorf("version of the status = %s: it is written as Accepted first, then as Draining", before)
	}

	r.Apply("now", request)
	r.Apply("later", &powerpb.ShutdownRequest{Action: powerpb.ShutdownRequest_POWER_OFF})
	later := waitFor(t, r, "later", reasonSuperseded)
	if want := `the node is going down for ShutdownRequest "now"`; later.GetMessage() != want {
		t.Errorf("message = %q, want %q", later.GetMessage(), want)
	}
	r.Delete("later", request)
	r.Wait("its status is gone", func() bool { return r.Get("later", later) == nil })
	if after := r.Get("now", st).GetVersion(); after != before {
		t.Errorf("the status went from version %s to %s: it was acted on again", before, after)
	}
}

func TestRequestStaysActedOnWhenTheRuntimeIsStartedAgain(t *testing.T) {
	r, _ := start(t)
	r.Apply("now", &powerpb.ShutdownRequest{Action: powerpb.ShutdownRequest_POWER_OFF})
	st := waitFor(t, r, "now", reasonDraining)
	before := r.Get("now", st).GetVersion()
	r.Stop()
	r.Resume(false)
	r.WaitReady()
	if after := r.Get("now", st).GetVersion(); after != before {
		t.Errorf("the status went from version %s to %s", before, after)
	}
}

func TestWords(t *testing.T) {
	for _, test := range []struct {
		request *powerpb.ShutdownRequest
		want    string
	}{
		{&powerpb.ShutdownRequest{Action: powerpb.ShutdownRequest_POWER_OFF}, "power-off"},
		{&powerpb.ShutdownRequest{Action: powerpb.ShutdownRequest_REBOOT, Reason: "why"}, "reboot: why"},
	} {
		if got := words(test.request); got != test.want {
			t.Errorf("words(%v) = %q; want %q", test.request, got, test.want)
		}
	}
}
