package etcdguard

import (
	"context"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	etcdpb "github.com/cosi-os/cosi/api/cosi/etcd/v1alpha1"
	powerpb "github.com/cosi-os/cosi/api/cosi/power/v1alpha1"
	"github.com/cosi-os/cosi/engine/runtime/plugintest"
	"github.com/cosi-os/cosi/plugins/power"
	"github.com/cosi-os/cosi/sdk"
)

const delay, block = powerpb.ShutdownInhibitor_DELAY, powerpb.ShutdownInhibitor_BLOCK

// node runs power and etcd-guard, as a node does.
type node struct {
	*plugintest.Runtime
	t   *testing.T
	end func() // of etcd-guard
}

func startNode(t *testing.T, guard *etcdpb.EtcdGuard) *node {
	t.Helper()
	p := power.Plugin()
	r := plugintest.Start(t, p.Declaration)
	run(t, r, p)
	n := &node{Runtime: r, t: t}
	n.Apply(guardID, guard)
	g := plugintest.Join(t, r, declared)
	n.end = run(t, g, Plugin())
	n.wait("the plugin holds an inhibitor", func() bool { return n.inhibits(delay) })
	return n
}

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

func (n *node) wait(what string, is func() bool) {
	n.t.Helper()
	for end := time.Now().Add(patience); !is(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			st := &etcdpb.EtcdGuardStatus{}
			n.Get(guardID, st)
			n.t.Fatalf("still not so after %v: %s; the guard says %v", patience, what, st)
		}
	}
}

func (n *node) inhibits(mode powerpb.ShutdownInhibitor_Mode) bool {
	i := &powerpb.ShutdownInhibitor{}
	return n.Get(inhibitorID, i) != nil && i.GetMode() == mode
}

func (n *node) request(r *powerpb.ShutdownRequest, reason string) *powerpb.ShutdownStatus {
	n.t.Helper()
	r.Action = powerpb.ShutdownRequest_REBOOT
	version := n.Apply("now", r).GetMetadata().GetVersion()
	st := &powerpb.ShutdownStatus{}
	n.wait("the request is answered", func() bool {
		return n.Get("now", st) != nil && st.GetObservedVersion() == version && (st.GetReason() == "Draining" || st.GetReason() == "Refused")
	})
	if st.GetReason() != reason {
		n.t.Fatalf("status %v; want %s", st, reason)
	}
	return st
}

func (n *node) status(reason string) *etcdpb.EtcdGuardStatus {
	n.t.Helper()
	st := &etcdpb.EtcdGuardStatus{}
	n.wait("the guard says "+reason, func() bool { return n.Get(guardID, st) != nil && st.GetReason() == reason })
	return st
}

// TestOneNodeAfterTheOther goes the way of a rolling reboot: the leader's node goes, another is refused until it is back.
func TestOneNodeAfterTheOther(t *testing.T) {
	e := startEtcd(t)
	first := e.Leader()
	second := (first + 1) % 3
	leaving := startNode(t, e.guard(first))
	if st := leaving.status(reasonGuarding); !st.GetReady() || st.GetVoters() != 3 || st.GetHealthy() != 3 || st.GetQuorum() != 2 ||
		st.GetLeader() != name(first) || st.GetLock() != nil || len(st.GetMembers()) != 3 {
		t.Errorf("status %v; want three healthy voters and the leader %s", st, name(first))
	}

	leaving.request(&powerpb.ShutdownRequest{}, "Draining")
	if now := e.Leader(); now == first {
		t.Errorf("%s was let go, and leads", name(first))
	}
	if st := leaving.status(reasonLeaving); st.GetLock().GetMember() != name(first) || st.GetLeader() == name(first) {
		t.Errorf("status %v; want the lock with %s, and another leader", st, name(first))
	}
	leaving.end()

	// Before its member has gone down, and after.
	other := startNode(t, e.guard(second))
	refused := other.request(&powerpb.ShutdownRequest{}, "Refused")
	if want := `member "` + name(first) + `" is going down`; !strings.Contains(refused.GetMessage(), want) {
		t.Errorf("status %v; want %s", refused, want)
	}
	e.Down(first)
	refused = other.request(&powerpb.ShutdownRequest{Reason: "again"}, "Refused")
	if want := `member "` + name(first) + `" is going down`; !strings.Contains(refused.GetMessage(), want) {
		t.Errorf("status %v; want %s", refused, want)
	}
	if st := other.status(reasonGuarding); st.GetLock().GetMember() != name(first) {
		t.Errorf("status %v; want the lock with %s", st, name(first))
	}

	// The node is back before its member.
	returned := startNode(t, e.guard(first))
	if st := returned.status(reasonReturning); st.GetLock().GetMember() != name(first) || st.GetHealthy() != 2 {
		t.Errorf("status %v; want the lock with %s, which is not healthy", st, name(first))
	}
	e.Up(first)
	e.waitHealthy(first)
	returned.status(reasonGuarding)
	if v := e.waitHealthy(first); v.lock.Member != "" {
		t.Errorf("%s is back and healthy, and has the lock", v.lock.Member)
	}
	other.request(&powerpb.ShutdownRequest{Reason: "third"}, "Draining")
}

// TestRefusedWhileAMemberIsLost: and not for ever, nor with force.
func TestRefusedWhileAMemberIsLost(t *testing.T) {
	e := startEtcd(t)
	lost := (e.Leader() + 1) % 3
	e.Down(lost)
	own := e.Leader()
	n := startNode(t, e.guard(own))
	st := n.request(&powerpb.ShutdownRequest{}, "Refused")
	for _, want := range []string{"1 of 3 voters would be healthy, fewer than the quorum of 2", `"` + name(lost) + `" is not`} {
		if !strings.Contains(st.GetMessage(), want) {
			t.Errorf("status %v; want %s", st, want)
		}
	}
	n.wait("it waits for the next request", func() bool { return n.inhibits(delay) })
	if v := e.waitHealthy(own); v.lock.Member != "" {
		t.Errorf("%s was refused, and has the lock", v.lock.Member)
	}

	n.request(&powerpb.ShutdownRequest{Force: true}, "Draining")
	if now := e.Leader(); now == own {
		t.Errorf("%s went by force, and the leader was not moved", name(own))
	}
	if v := e.waitHealthy(own); v.lock.Member != name(own) {
		t.Errorf("the lock is with %q; want %s, which is going down", v.lock.Member, name(own))
	}
}

func TestWithoutAQuorum(t *testing.T) {
	e := startEtcd(t)
	e.Down(0)
	e.Down(1)
	guard := e.guard(2)
	guard.Deadline = durationpb.New(10 * time.Second)
	for name, test := range map[string]struct {
		request *powerpb.ShutdownRequest
		reason  string
	}{
		"is refused":        {&powerpb.ShutdownRequest{}, "Refused"},
		"goes by force":     {&powerpb.ShutdownRequest{Force: true}, "Draining"},
		"goes when it must": {&powerpb.ShutdownRequest{Critical: true}, "Draining"},
	} {
		t.Run(name, func(t *testing.T) {
			n := startNode(t, guard)
			st := n.request(test.request, test.reason)
			if took := time.Since(st.GetSince().AsTime()); took > guard.GetDeadline().AsDuration() {
				t.Errorf("answered after %v; want within the deadline, %v", took, guard.GetDeadline().AsDuration())
			}
			if test.reason == "Refused" && !strings.Contains(st.GetMessage(), "etcd may have no quorum") {
				t.Errorf("status %v; want that there may be no quorum", st)
			}
		})
	}
}

// TestARequestThatOthersRefuse: the lock does not stay with a node that stays up.
func TestARequestThatOthersRefuse(t *testing.T) {
	e := startEtcd(t)
	n := startNode(t, e.guard(0))
	n.Apply("backup", &powerpb.ShutdownInhibitor{Mode: delay, Reason: "a backup", Limit: durationpb.New(time.Hour), Lease: durationpb.New(time.Hour)})
	n.Apply("now", &powerpb.ShutdownRequest{Action: powerpb.ShutdownRequest_REBOOT})
	n.wait("etcd has agreed, and the backup is waited for", func() bool { return n.Get(inhibitorID, &powerpb.ShutdownInhibitor{}) == nil })
	if v := e.waitHealthy(0); v.lock.Member != name(0) {
		t.Errorf("the lock is with %q; want %s", v.lock.Member, name(0))
	}
	n.Apply("backup", &powerpb.ShutdownInhibitor{Mode: block, Reason: "a backup", Lease: durationpb.New(time.Hour)})
	n.wait("it waits for the next request", func() bool { return n.inhibits(delay) })
	if st := n.status(reasonGuarding); st.GetLock() != nil || e.waitHealthy(0).lock.Member != "" {
		t.Errorf("status %v; want that nobody has the lock", st)
	}
}

// TestTheLockGoesWithItsLease: a node that does not come back keeps the others up for so long only.
func TestTheLockGoesWithItsLease(t *testing.T) {
	e := startEtcd(t)
	lost := e.guard(0)
	lost.Lease = durationpb.New(time.Second) // etcd makes a few of it: no lease is shorter than an election
	for n, guard := range []*etcdpb.EtcdGuard{lost, e.guard(1)} {
		c, err := connect(guard)
		if err != nil {
			t.Fatal(err)
		}
		defer c.close()
		err = c.lock(t.Context())
		if n == 0 && err != nil || n == 1 && err == nil {
			t.Fatalf("lock by %s = %v; want that %s has it", name(n), err, name(0))
		}
		for end := time.Now().Add(patience); err != nil; err = c.lock(t.Context()) {
			if time.Now().After(end) {
				t.Fatalf("lock by %s after %v: %v", name(n), patience, err)
			}
			time.Sleep(100 * time.Millisecond)
		}
	}
}

// TestAGuardThatIsGone holds nothing.
func TestAGuardThatIsGone(t *testing.T) {
	guard := &etcdpb.EtcdGuard{Endpoints: []string{"https://127.0.0.1:1"}, Member: "m", Ca: "no certificate"}
	n := startNode(t, guard)
	if st := n.status(reasonUnreachable); st.GetReady() || !strings.Contains(st.GetMessage(), "ca: ") {
		t.Errorf("status %v; want what is wrong with the CA", st)
	}
	n.Apply("second", guard)
	ignored := &etcdpb.EtcdGuardStatus{}
	n.wait("a second one is ignored", func() bool { return n.Get("second", ignored) != nil && ignored.GetReason() == reasonIgnored })
	n.Delete(guardID, guard)
	n.wait("nothing is held", func() bool { return n.Get(inhibitorID, &powerpb.ShutdownInhibitor{}) == nil })
	n.wait("its status is gone", func() bool { return n.Get(guardID, &etcdpb.EtcdGuardStatus{}) == nil })
	n.request(&powerpb.ShutdownRequest{}, "Draining")
}
