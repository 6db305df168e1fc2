package probe

import (
	"context"
	"errors"
	"fmt"
	"os"

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
	go panic("a ProbeRequest asked for it") // in a goroutine that nobody recovers
	select {}
}

// ender reconciles ProbeRequests by calling itself.
type ender func(testpb.ProbeRequest_Action)

// reconcile ends the plugin once for each version of a request. What it does then is told by the status that the runtime keeps while
// the plugin is dead.
func (end ender) reconcile(ctx context.Context, s *sdk.State) error {
	var errs []error
	for _, r := range sdk.List[*testpb.ProbeRequest](s, requestType) {
		st, ok := sdk.Get[*testpb.ProbeRequestStatus](s, statusType, r.GetId())
		if !ok || st.Spec.GetObservedVersion() != r.GetVersion() {
			if err := s.Write(ctx, statusType, r.GetId(), ending(r), r.Metadata); err != nil {
				return err
			}
			end(r.Spec.GetAction())
			continue
		}
		if pid := st.Spec.GetPid(); !st.Spec.GetReady() && pid != uint32(os.Getpid()) {
			errs = append(errs, s.Write(ctx, statusType, r.GetId(), back(st.Spec), r.Metadata))
		}
	}
	for _, id := range s.Outputs(statusType) {
		if _, ok := sdk.Get[*testpb.ProbeRequest](s, requestType, id); !ok {
			errs = append(errs, s.Delete(ctx, statusType, id))
		}
	}
	return errors.Join(errs...)
}

func ending(r sdk.Resource[*testpb.ProbeRequest]) *testpb.ProbeRequestStatus {
	return &testpb.ProbeRequestStatus{ObservedVersion: r.GetVersion(), Reason: "Ending", Pid: uint32(os.Getpid())}
}

// back is the status that a later process writes.
func back(last *testpb.ProbeRequestStatus) *testpb.ProbeRequestStatus {
	return &testpb.ProbeRequestStatus{
		ObservedVersion: last.GetObservedVersion(), Ready: true, Reason: "Back", Pid: last.GetPid(),
		Message: fmt.Sprintf("process %d goes on where %d ended", os.Getpid(), last.GetPid()),
	}
}
