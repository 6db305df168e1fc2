package probe

import (
	"context"
	"testing"

	testpb "github.com/cosi-os/cosi/api/cosi/test/v1alpha1"
	"github.com/cosi-os/cosi/engine/runtime/plugintest"
	"github.com/cosi-os/cosi/sdk"
)

// run runs the plugin as the process pid until stop is called, and sends what it would end with.
func run(t *testing.T, pid uint32, ended chan<- testpb.ProbeRequest_Action) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = sdk.Run(ctx, plugin(nil, ender{pid, func(a testpb.ProbeRequest_Action) { ended <- a }}))
	}()
	return func() { cancel(); <-done }
}

func TestRequestEndsTheProcessOnce(t *testing.T) {
	r := plugintest.Start(t, declared)
	t.Setenv(sdk.EnvEndpoint, r.Endpoint)
	ended := make(chan testpb.ProbeRequest_Action, 8)
	stop := run(t, 11, ended)
	request := r.Apply("end", &testpb.ProbeRequest{Action: testpb.ProbeRequest_KILL})
	if a := <-ended; a != testpb.ProbeRequest_KILL {
		t.Errorf("ended with %v; want KILL", a)
	}
	stop()
	st := &testpb.ProbeRequestStatus{}
	if r.Get("end", st); st.GetReady() || st.GetPid() != 11 {
		t.Errorf("status of the process that ended: %v", st)
	}
	stop = run(t, 12, ended)
	defer stop()
	r.Wait("the process after it is back", func() bool { r.Get("end", st); return st.GetReady() })
	if st.GetObservedVersion() != request.GetMetadata().GetVersion() || st.GetPid() != 11 {
		t.Errorf("status of the process after it: %v", st)
	}
	if len(ended) != 0 {
		t.Error("it ended again for the same request")
	}
	r.Apply("end", &testpb.ProbeRequest{Action: testpb.ProbeRequest_CRASH})
	if a := <-ended; a != testpb.ProbeRequest_CRASH {
		t.Errorf("ended with %v; want CRASH", a)
	}
}
