package vmtest_test

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	etcdpb "github.com/cosi-os/cosi/api/cosi/etcd/v1alpha1"
	machinepb "github.com/cosi-os/cosi/api/cosi/machine/v1alpha1"
	powerpb "github.com/cosi-os/cosi/api/cosi/power/v1alpha1"
	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	"github.com/cosi-os/cosi/hack/etcdtest"
	"github.com/cosi-os/cosi/hack/vmtest"
)

// host is what the node knows 127.0.0.1 of the host by.
const host = "10.0.2.2"

// apart is how far presses of the power button are apart that do not belong together.
const apart = 6 * time.Second

// checkEtcdGuard: the node of a member stays up while another member is down. When all are healthy it goes, and the leader is another one.
func checkEtcdGuard(t *testing.T, n *vmtest.Node) {
	for _, inhibitor := range []string{"backup", "raid"} { // of checkPress
		n.Delete(t, "shutdowninhibitors", inhibitor)
	}
	e := etcdtest.Start(t, host)
	own := guards(t, n, e)
	lost := (own + 1) % 3
	e.Down(lost)
	press(t, n)
	refusal := &powerpb.ShutdownStatus{}
	n.Until(t, "shutdownstatuses", "power-button", refusal, func(*resourcepb.Metadata) bool {
		h := refusal.GetHolders()
		return refusal.GetReason() == "Refused" && len(h) == 1 && h[0].GetHolder() == "etcd-guard"
	})
	for _, want := range []string{"1 of 3 voters would be healthy, fewer than the quorum of 2", `"` + etcdtest.Name(lost) + `" is not`} {
		if !strings.Contains(refusal.GetMessage(), want) {
			t.Errorf("refused: %v; want %s", refusal, want)
		}
	}
	if n.Get(t, "machine", "machine", &machinepb.MachineStatus{}) == nil {
		t.Error("the node has no status")
	}

	e.Up(lost)
	own = guards(t, n, e)
	time.Sleep(apart)
	n.PressPower(t)
	if now := e.Leader(); now == own {
		t.Errorf("%s has gone, and leads", etcdtest.Name(own))
	}
}

// guards has the node be that of the leader, and waits until it knows the cluster.
func guards(t *testing.T, n *vmtest.Node, e *etcdtest.Etcd) (leader int) {
	t.Helper()
	leader = e.Leader()
	guard := e.Guard(leader)
	guard.Deadline = durationpb.New(time.Minute)
	spec, err := proto.Marshal(guard)
	if err != nil {
		t.Fatal(err)
	}
	kind := n.Kind(t, "etcdguard")
	_, _, err = n.Client.Apply(n.Patience(t, moment), kind, &resourcepb.Resource{
		Metadata: &resourcepb.Metadata{Namespace: kind.Namespace(), Type: kind.Type(), Id: "node", Version: "1", Phase: "running"},
		Spec:     &resourcepb.Spec{ProtoSpec: spec},
	})
	if err != nil {
		t.Fatal(err)
	}
	status := &etcdpb.EtcdGuardStatus{}
	n.Until(t, "etcdguardstatuses", "node", status, func(*resourcepb.Metadata) bool { return status.GetReason() == "Guarding" })
	if status.GetVoters() != 3 || status.GetQuorum() != 2 || status.GetLeader() != etcdtest.Name(leader) || status.GetLock() != nil {
		t.Errorf("guard: %v; want three voters, the leader %s, and no lock", status, etcdtest.Name(leader))
	}
	return leader
}

// press presses the power button, some time after the last press.
func press(t *testing.T, n *vmtest.Node) {
	t.Helper()
	time.Sleep(apart)
	if err := n.Monitor.Execute(n.Patience(t, patience), "system_powerdown", nil, nil); err != nil {
		t.Fatal(err)
	}
}
