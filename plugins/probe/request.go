package probe

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"

	"golang.org/x/sys/unix"

	testpb "github.com/cosi-os/cosi/api/cosi/test/v1alpha1"
	"github.com/cosi-os/cosi/sdk"
)

// end does what a request asks for. It does not return, but in tests.
func end(action testpb.ProbeRequest_Action) {
	if action == testpb.ProbeRequest_KILL {
		_ = unix.Kill(unix.Getpid(), unix.SIGKILL)
		select {}
	}
	if action == testpb.ProbeRequest_ABORT {
		debug.SetTraceback("crash")
	}
	go panic("a ProbeRequest asked for it") // in a goroutine that nobody recovers
	select {}
}

// ender reconciles ProbeRequests by ending the process pid.
type ender struct {
	pid uint32
	end func(testpb.ProbeRequest_Action)
}

// reconcile ends the plugin once for each version of a request. That it has done so is told by the status, which the runtime keeps
// while the plugin is dead.
func (e ender) reconcile(ctx context.Context, s *sdk.State) error {
	var errs []error
	for _, r := range sdk.List[*testpb.ProbeRequest](s, requestType) {
		st, ok := sdk.Get[*testpb.ProbeRequestStatus](s, statusType, r.GetId())
		switch {
		case !ok || st.Spec.GetObservedVersion() != r.GetVersion():
			ending := &testpb.ProbeRequestStatus{ObservedVersion: r.GetVersion(), Reason: "Ending", Pid: e.pid}
			if err := s.Write(ctx, statusType, r.GetId(), ending, r.Metadata); err != nil {
				return err
			}
			e.end(r.Spec.GetAction())
		case !st.Spec.GetReady() && st.Spec.GetPid() != e.pid:
			back := &testpb.ProbeRequestStatus{
				ObservedVersion: r.GetVersion(), Ready: true, Reason: "Back", Pid: st.Spec.GetPid(),
				Message: fmt.Sprintf("process %d goes on where %d ended", e.pid, st.Spec.GetPid()),
			}
			errs = append(errs, s.Write(ctx, statusType, r.GetId(), back, r.Metadata))
		}
	}
	for _, id := range s.Outputs(statusType) {
		if _, ok := sdk.Get[*testpb.ProbeRequest](s, requestType, id); !ok {
			errs = append(errs, s.Delete(ctx, statusType, id))
		}
	}
	return errors.Join(errs...)
}
