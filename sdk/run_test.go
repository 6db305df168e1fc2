package sdk_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	storagepb "github.com/cosi-os/cosi/api/cosi/storage/v1alpha1"
	"github.com/cosi-os/cosi/engine/runtime/plugintest"
	"github.com/cosi-os/cosi/engine/runtime/state"
	"github.com/cosi-os/cosi/engine/runtime/state/memory"
	"github.com/cosi-os/cosi/sdk"
)

const (
	points   = "MountPoints.storage.cosi.dev"
	statuses = "MountPointStatuses.storage.cosi.dev"
)

var declared = []byte(`{
	"name": "copy", "description": "copies targets",
	"inputs": [{"type": "` + points + `", "finalizers": true}], "outputs": ["` + statuses + `"]
}`)

// copier is a plugin whose one controller writes the target of each MountPoint into a status.
type copier struct {
	reconciled atomic.Int64
	fail       atomic.Int64 // how many calls of Reconcile still end with an error
	drained    atomic.Int64
	seen       sync.Map // what a test wants to know
}

func (c *copier) plugin() sdk.Plugin {
	return sdk.Plugin{Declaration: declared, Version: "1", Controllers: []sdk.Controller{{
		Name: "copies", Inputs: []string{points}, Outputs: []string{statuses},
		Reconcile: c.reconcile,
		Watch: func(ctx context.Context, wake func()) error {
			c.seen.Store("wake", wake)
			<-ctx.Done()
			return nil
		},
		Drain: func(context.Context, *sdk.State) error { c.drained.Add(1); return nil },
	}}}
}

func (c *copier) reconcile(ctx context.Context, s *sdk.State) error {
	defer c.reconciled.Add(1)
	if c.fail.Add(-1) >= 0 {
		return errors.New("not today")
	}
	for _, p := range sdk.List[*storagepb.MountPoint](s, points) {
		if p.TearingDown() {
			if err := s.Delete(ctx, statuses, p.GetId()); err != nil {
				return err
			}
			if err := s.RemoveFinalizer(ctx, p.Metadata); err != nil {
				return err
			}
			continue
		}
		if err := s.AddFinalizer(ctx, p.Metadata); err != nil {
			return err
		}
		status := &storagepb.MountPointStatus{ObservedVersion: p.GetVersion(), Ready: true, Target: p.Spec.GetTarget()}
		if err := s.Write(ctx, statuses, p.GetId(), status, p.Metadata); err != nil {
			return err
		}
	}
	for _, id := range s.Outputs(statuses) {
		if _, ok := sdk.Get[*storagepb.MountPoint](s, points, id); !ok {
			if err := s.Delete(ctx, statuses, id); err != nil {
				return err
			}
		}
	}
	return nil
}

// run runs p against r until the test ends, and returns what Run returned.
func run(t *testing.T, r *plugintest.Runtime, p sdk.Plugin) (stop func() error) {
	t.Helper()
	t.Setenv(sdk.EnvEndpoint, r.Endpoint)
	ctx, cancel := context.WithCancel(t.Context())
	result := make(chan error, 1)
	go func() { result <- sdk.Run(ctx, p) }()
	stop = sync.OnceValue(func() error {
		cancel()
		return <-result
	})
	t.Cleanup(func() { _ = stop() })
	return stop
}

func mountPoint(target string) *storagepb.MountPoint {
	return &storagepb.MountPoint{Source: "tmpfs", Target: target, Fstype: "tmpfs"}
}

// converged reports whether the status of id answers to the present MountPoint, and with target.
func converged(r *plugintest.Runtime, id, target string) func() bool {
	return func() bool {
		st := &storagepb.MountPointStatus{}
		p := r.Get(id, &storagepb.MountPoint{})
		return r.Get(id, st) != nil && st.GetTarget() == target && st.GetObservedVersion() == p.GetVersion()
	}
}

func TestResourcesThatWereThereAndNewOnesAreReconciled(t *testing.T) {
	r := plugintest.Start(t, declared)
	r.Apply("old", mountPoint("/var/old"))
	run(t, r, (&copier{}).plugin())
	r.WaitReady()
	if !converged(r, "old", "/var/old")() {
		t.Error("the plugin is ready before it has reconciled what was there")
	}
	r.Apply("new", mountPoint("/var/new"))
	r.Wait("new is copied", converged(r, "new", "/var/new"))
	r.Apply("new", mountPoint("/var/newer"))
	r.Wait("new is copied again", converged(r, "new", "/var/newer"))

	m := r.Get("new", &storagepb.MountPoint{})
	if !slices.Equal(m.GetFinalizers(), []string{"copy"}) {
		t.Errorf("finalizers = %q, want copy", m.GetFinalizers())
	}
	st := r.Get("new", &storagepb.MountPointStatus{})
	if st.GetOwner() != "copy" {
		t.Errorf("owner of the output = %q, want copy", st.GetOwner())
	}
	if got, want := st.GetAnnotations()[sdk.Cause], fmt.Sprintf("%s/new@%s", points, m.GetVersion()); got != want {
		t.Errorf("cause = %q, want %q", got, want)
	}
}

func TestDeletedInputGoesWhenTheFinalizerIsOff(t *testing.T) {
	r := plugintest.Start(t, declared)
	run(t, r, (&copier{}).plugin())
	r.Apply("data", mountPoint("/var/data"))
	r.Wait("data is copied", converged(r, "data", "/var/data"))
	r.Delete("data", &storagepb.MountPoint{})
	if r.Get("data", &storagepb.MountPointStatus{}) != nil {
		t.Error("the status is still there")
	}
}

func TestReconcilingAgainWritesNothing(t *testing.T) {
	r := plugintest.Start(t, declared)
	c := &copier{}
	run(t, r, c.plugin())
	r.Apply("data", mountPoint("/var/data"))
	r.Wait("data is copied", converged(r, "data", "/var/data"))
	before := r.Get("data", &storagepb.MountPointStatus{}).GetVersion()
	wake, _ := c.seen.Load("wake")
	for range 3 {
		n := c.reconciled.Load()
		wake.(func())()
		r.Wait("it was reconciled once more", func() bool { return c.reconciled.Load() > n })
	}
	if after := r.Get("data", &storagepb.MountPointStatus{}).GetVersion(); after != before {
		t.Errorf("version of the status went from %s to %s", before, after)
	}
}

func TestFailedReconcileIsTriedAgain(t *testing.T) {
	r := plugintest.Start(t, declared)
	c := &copier{}
	c.fail.Store(2)
	began := time.Now()
	run(t, r, c.plugin())
	r.WaitReady()
	if got := c.reconciled.Load(); got < 3 {
		t.Errorf("ready after %d calls, two of which failed", got)
	}
	// A change that comes in between ends one wait early; not all.
	if took := time.Since(began); took < 100*time.Millisecond {
		t.Errorf("ready after %v: there was no back-off", took)
	}
}

func TestPluginGoesOnAfterTheRuntimeRestarted(t *testing.T) {
	for _, fresh := range []bool{false, true} {
		t.Run(fmt.Sprintf("fresh=%v", fresh), func(t *testing.T) {
			r := plugintest.Start(t, declared)
			run(t, r, (&copier{}).plugin())
			r.Apply("data", mountPoint("/var/data"))
			r.Wait("data is copied", converged(r, "data", "/var/data"))
			r.Stop()
			r.Resume(fresh)
			r.Apply("data", mountPoint("/var/other")) // while the plugin is away
			r.Apply("more", mountPoint("/var/more"))
			r.WaitReady()
			r.Wait("data is copied again", converged(r, "data", "/var/other"))
			r.Wait("more is copied", converged(r, "more", "/var/more"))
			r.Delete("more", &storagepb.MountPoint{})
		})
	}
}

func TestOutputsAreWrittenAgainWhenTheStoreWasLost(t *testing.T) {
	r := plugintest.Start(t, declared)
	run(t, r, (&copier{}).plugin())
	r.Apply("data", mountPoint("/var/data"))
	r.Apply("gone", mountPoint("/var/gone"))
	r.Wait("both are copied", func() bool { return converged(r, "data", "/var/data")() && converged(r, "gone", "/var/gone")() })
	r.Stop()
	r.Resume(true)
	r.Apply("data", mountPoint("/var/data"))
	r.Wait("data is copied again", converged(r, "data", "/var/data"))
	r.WaitReady()
	if r.Get("gone", &storagepb.MountPointStatus{}) != nil {
		t.Error("a status came back whose MountPoint is gone with the store")
	}
}

func TestOrphanOfAnEarlierRunIsDeleted(t *testing.T) {
	r := plugintest.Start(t, declared)
	stop := run(t, r, (&copier{}).plugin())
	r.Apply("data", mountPoint("/var/data"))
	r.Wait("data is copied", converged(r, "data", "/var/data"))
	if err := stop(); !errors.Is(err, context.Canceled) {
		t.Errorf("Run = %v, want the context's error", err)
	}
	forget(t, r, "data") // while the plugin is away
	run(t, r, (&copier{}).plugin())
	r.Wait("the orphan is gone", func() bool { return r.Get("data", &storagepb.MountPointStatus{}) == nil })
}

func TestOutputThatOthersHoldIsDeletedWhenTheyLetGo(t *testing.T) {
	r := plugintest.Start(t, declared)
	run(t, r, (&copier{}).plugin())
	r.Apply("data", mountPoint("/var/data"))
	r.Wait("data is copied", converged(r, "data", "/var/data"))
	hold := func(names ...string) {
		t.Helper()
		held, err := r.Store.Get(t.Context(), state.Pointer{Kind: state.Kind{Namespace: "status", Type: statuses}, ID: "data"})
		if err != nil {
			t.Fatal(err)
		}
		held = proto.CloneOf(held)
		held.Metadata.Finalizers = names
		if _, err := r.Store.Update(t.Context(), held, state.WriteOptions{Owner: "copy"}); err != nil {
			t.Fatal(err)
		}
	}
	hold("marker")
	r.Teardown("data", &storagepb.MountPoint{})
	r.Wait("the status is being torn down", func() bool {
		return r.Get("data", &storagepb.MountPointStatus{}).GetPhase() == state.PhaseTearingDown
	})
	if len(r.Get("data", &storagepb.MountPoint{}).GetFinalizers()) == 0 {
		t.Error("the MountPoint was let go of while its status is still held")
	}
	hold()
	r.Wait("the status is gone", func() bool { return r.Get("data", &storagepb.MountPointStatus{}) == nil })
}

func TestDrainedPluginEnds(t *testing.T) {
	r := plugintest.Start(t, declared)
	c := &copier{}
	t.Setenv(sdk.EnvEndpoint, r.Endpoint)
	result := make(chan error, 1)
	go func() { result <- sdk.Run(t.Context(), c.plugin()) }()
	r.WaitReady()
	if late := r.Table.Drain(t.Context(), "power-off", time.Now().Add(10*time.Second), func(string) {}); len(late) > 0 {
		t.Errorf("late = %q, want none", late)
	}
	if err := <-result; err != nil {
		t.Errorf("Run = %v, want nil", err)
	}
	if got := c.drained.Load(); got != 1 {
		t.Errorf("drained %d times, want once", got)
	}
}

// TestOneControllerReadsWhatAnotherWrites: the answer to the write may be in memory before its event.
func TestOneControllerReadsWhatAnotherWrites(t *testing.T) {
	declared := []byte(`{"name": "copy", "description": "two controllers",
		"inputs": [{"type": "` + points + `"}, {"type": "` + statuses + `"}], "outputs": ["` + statuses + `"]}`)
	r := plugintest.Start(t, declared)
	seen := make(chan string, 1000)
	run(t, r, sdk.Plugin{Declaration: declared, Controllers: []sdk.Controller{
		{Name: "reader", Inputs: []string{statuses}, Reconcile: func(_ context.Context, s *sdk.State) error {
			for _, st := range sdk.List[*storagepb.MountPointStatus](s, statuses) {
				seen <- st.Spec.GetTarget()
			}
			return nil
		}},
		{Name: "writer", Inputs: []string{points}, Outputs: []string{statuses}, Reconcile: func(ctx context.Context, s *sdk.State) error {
			for _, p := range sdk.List[*storagepb.MountPoint](s, points) {
				if err := s.Write(ctx, statuses, "it", &storagepb.MountPointStatus{Target: p.Spec.GetTarget()}, nil); err != nil {
					return err
				}
			}
			return nil
		}},
	}})
	for n := range 50 {
		target := fmt.Sprintf("/var/%d", n)
		r.Apply("data", mountPoint(target))
		r.Wait("the reader has seen "+target, func() bool {
			select {
			case got := <-seen:
				return got == target
			default:
				return false
			}
		})
	}
}

// Events are written and deleted, and can be fetched; the plugin neither watches nor keeps them.
func TestEventsAreWrittenAndNotKept(t *testing.T) {
	declared := []byte(`{"name": "teller", "description": "keeps nothing", "inputs": [{"type": "` + points + `"}], "outputs": ["` + statuses + `"]}`)
	r := plugintest.Start(t, declared)
	run(t, r, sdk.Plugin{Declaration: declared, Controllers: []sdk.Controller{{
		Name: "teller", Inputs: []string{points}, Events: []string{statuses}, Reconcile: func(ctx context.Context, s *sdk.State) error {
			all := sdk.List[*storagepb.MountPoint](s, points)
			if len(all) == 0 {
				for _, id := range []string{"nothing", "foreign", "it"} {
					if err := s.Delete(ctx, statuses, id); err != nil {
						return err
					}
				}
				return nil
			}
			for range 2 { // the answer to the first may be lost
				if err := s.Write(ctx, statuses, "it", &storagepb.MountPointStatus{Target: all[0].Spec.GetTarget()}, nil); err != nil {
					return err
				}
			}
			there, err := sdk.Fetch[*storagepb.MountPointStatus](ctx, s, statuses)
			if err != nil || len(there) != 1 || there[0].Spec.GetTarget() != all[0].Spec.GetTarget() {
				t.Errorf("fetched %v, %v; want the one that was written", there, err)
			}
			defer func() {
				if recover() == nil {
					t.Error("List of events shows none, though there is one")
				}
			}()
			sdk.List[*storagepb.MountPointStatus](s, statuses)
			return nil
		},
	}}})
	r.WaitReady()
	r.Apply("foreign", &storagepb.MountPointStatus{})
	r.Apply("data", mountPoint("/var/a"))
	status := &storagepb.MountPointStatus{}
	r.Wait("the event is there", func() bool { return r.Get("it", status) != nil && status.GetTarget() == "/var/a" })
	if m := r.Get("it", status); m.GetVersion() != "1" || m.GetOwner() != "teller" {
		t.Errorf("metadata %v; want the first version of the plugin's own", m)
	}
	r.Delete("data", &storagepb.MountPoint{})
	r.Wait("the event is gone", func() bool { return r.Get("it", status) == nil })
	if r.Get("foreign", status) == nil {
		t.Error("what is not the plugin's is gone")
	}
}

// TestFetchIsNeverBehind: a write that was acknowledged is in it, whatever the watch has brought. Of an output it is the plugin's own.
func TestFetchIsNeverBehind(t *testing.T) {
	r := plugintest.Start(t, declared)
	r.Apply("theirs", &storagepb.MountPointStatus{Target: "/var/theirs"})
	states := make(chan *sdk.State, 1)
	run(t, r, sdk.Plugin{Declaration: declared, Controllers: []sdk.Controller{{
		Name: "copies", Inputs: []string{points}, Outputs: []string{statuses},
		Reconcile: func(_ context.Context, s *sdk.State) error {
			select {
			case states <- s:
			default:
			}
			return nil
		},
	}}})
	s := <-states
	for n := range 50 {
		target := fmt.Sprintf("/var/%d", n)
		r.Apply("data", mountPoint(target))
		if all, err := sdk.Fetch[*storagepb.MountPoint](t.Context(), s, points); err != nil || len(all) != 1 || all[0].Spec.GetTarget() != target {
			t.Fatalf("Fetch = %v, %v; want %s", all, err, target)
		}
	}
	if all, err := sdk.Fetch[*storagepb.MountPointStatus](t.Context(), s, statuses); err != nil || len(all) > 0 {
		t.Errorf("Fetch = %v, %v; want nothing of others", all, err)
	}
	r.Stop()
	if all, err := sdk.Fetch[*storagepb.MountPoint](t.Context(), s, points); err == nil || len(all) > 0 {
		t.Errorf("Fetch = %v, %v without a runtime; want an error", all, err)
	}
}

func TestClientIsHeldToTheDeclaration(t *testing.T) {
	r := plugintest.Start(t, declared)
	c := &copier{}
	plugin := c.plugin()
	refused := make(chan error, 1)
	plugin.Controllers[0].Reconcile = func(ctx context.Context, s *sdk.State) error {
		_, err := s.Client().Get(ctx, &resourcepb.GetRequest{Namespace: "config", Type: "Certificates.machine.cosi.dev", Id: "node"})
		select {
		case refused <- err:
		default:
		}
		return nil
	}
	run(t, r, plugin)
	if err := <-refused; status.Code(err) != codes.PermissionDenied {
		t.Errorf("Get of an undeclared kind = %v, want PERMISSION_DENIED", err)
	}
}

func TestRunRefusesWhatCanNeverWork(t *testing.T) {
	nothing := func(context.Context, *sdk.State) error { return nil }
	for _, test := range []struct {
		name, endpoint string
		plugin         sdk.Plugin
		want           string
	}{
		{"no endpoint", "", sdk.Plugin{Declaration: declared},
			"COSI_ENDPOINT is not set: it names the runtime's socket (unix:///run/cosi/plugin/NAME.sock), and the engine sets it when it starts a plugin"},
		{"no unix socket", "localhost:1", sdk.Plugin{Declaration: declared}, `COSI_ENDPOINT: "localhost:1" is not a unix socket (unix:///PATH)`},
		{"broken declaration", "", sdk.Plugin{Declaration: []byte(`{"name": "Copy"}`)},
			`plugin.json: name: "Copy" is not a plugin name (lower-case letters, digits, hyphens; at most 31)`},
		{"undeclared input", "", sdk.Plugin{Declaration: declared, Controllers: []sdk.Controller{{Name: "c", Inputs: []string{statuses}, Reconcile: nothing}}},
			`controller "c": input ` + statuses + ` is not in the plugin's declaration`},
		{"undeclared output", "", sdk.Plugin{Declaration: declared, Controllers: []sdk.Controller{{Name: "c", Outputs: []string{points}, Reconcile: nothing}}},
			`controller "c": output ` + points + ` is not in the plugin's declaration`},
		{"events that are kept", "", sdk.Plugin{Declaration: declared, Controllers: []sdk.Controller{
			{Name: "a", Events: []string{statuses}, Reconcile: nothing}, {Name: "b", Outputs: []string{statuses}, Reconcile: nothing}}},
			`controller "b": ` + statuses + `: a controller has them as events, and another keeps them`},
		{"no reconcile", "", sdk.Plugin{Declaration: declared, Controllers: []sdk.Controller{{Name: "c"}}}, `controller "c": it needs a name and Reconcile`},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Setenv(sdk.EnvEndpoint, test.endpoint)
			if err := sdk.Run(t.Context(), test.plugin); err == nil || err.Error() != test.want {
				t.Errorf("Run = %v, want %s", err, test.want)
			}
		})
	}
}

func TestRunEndsWhenTheRuntimeRefusesTheRegistration(t *testing.T) {
	r := plugintest.Start(t, []byte(`{"name": "other", "description": "another plugin's socket"}`))
	t.Setenv(sdk.EnvEndpoint, r.Endpoint)
	if err := sdk.Run(t.Context(), (&copier{}).plugin()); status.Code(err) != codes.PermissionDenied {
		t.Errorf("Run = %v, want PERMISSION_DENIED", err)
	}
}

// small is a store that remembers few events, so that watchers fall behind and bookmarks expire.
func small(t *testing.T) *plugintest.Runtime {
	r := plugintest.Start(t, declared)
	r.Stop()
	r.Store = memory.New(memory.Options{Limits: func(state.Kind) memory.Limits { return memory.Limits{Events: 4} }})
	r.Resume(false)
	return r
}

func TestExpiredBookmarkIsFollowedByTheWholeContents(t *testing.T) {
	r := small(t)
	run(t, r, (&copier{}).plugin())
	r.Apply("kept", mountPoint("/var/kept"))
	r.Apply("gone", mountPoint("/var/gone"))
	r.Wait("both are copied", func() bool { return converged(r, "kept", "/var/kept")() && converged(r, "gone", "/var/gone")() })
	r.Stop()
	forget(t, r, "gone")
	for n := range 20 {
		r.Apply("new", mountPoint(fmt.Sprintf("/var/new%d", n)))
	}
	r.Resume(false)
	r.Wait("new is copied", converged(r, "new", "/var/new19"))
	r.Wait("the status of what went is gone", func() bool { return r.Get("gone", &storagepb.MountPointStatus{}) == nil })
}

func TestSlowWatcherMissesNothing(t *testing.T) {
	r := small(t)
	run(t, r, (&copier{}).plugin())
	for n := range 300 {
		r.Apply(fmt.Sprintf("p%d", n%10), mountPoint(fmt.Sprintf("/var/%d", n)))
	}
	for n := range 10 {
		r.Wait("the last write is copied", converged(r, fmt.Sprintf("p%d", n), fmt.Sprintf("/var/%d", 290+n)))
	}
}

// forget destroys a MountPoint that still carries the plugin's finalizer, as an admin may.
func forget(t *testing.T, r *plugintest.Runtime, id string) {
	t.Helper()
	pointer := state.Pointer{Kind: state.Kind{Namespace: "config", Type: points}, ID: id}
	p, err := r.Store.Get(t.Context(), pointer)
	if err != nil {
		t.Fatal(err)
	}
	p = proto.CloneOf(p)
	p.Metadata.Finalizers = nil
	if _, err := r.Store.Update(t.Context(), p, state.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	r.Delete(id, &storagepb.MountPoint{})
}
