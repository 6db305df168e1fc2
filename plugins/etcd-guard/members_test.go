package etcdguard

import (
	"context"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	etcdpb "github.com/cosi-os/cosi/api/cosi/etcd/v1alpha1"
	"github.com/cosi-os/cosi/hack/etcdtest"
)

const patience = etcdtest.Patience

// etcd is a cluster as the plugin sees it.
type etcd struct {
	*etcdtest.Etcd
	t *testing.T
}

// startEtcd starts three members, and waits until they have a leader.
func startEtcd(t *testing.T) etcd {
	t.Helper()
	e := etcd{etcdtest.Start(t, ""), t}
	e.Leader()
	return e
}

func name(n int) string { return etcdtest.Name(n) }

// guard is the configuration of the node of a member.
func (e etcd) guard(n int) *etcdpb.EtcdGuard {
	g := e.Guard(n)
	g.Deadline = durationpb.New(time.Minute)
	return g
}

// view is the cluster as it is now.
func (e etcd) view(n int) (*view, error) {
	ctx, cancel := context.WithTimeout(e.t.Context(), 10*time.Second)
	defer cancel()
	c, err := connect(e.guard(n))
	if err != nil {
		e.t.Fatal(err)
	}
	defer c.close()
	return c.inspect(ctx)
}

func (e etcd) waitHealthy(n int) *view {
	e.t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(100 * time.Millisecond) {
		v, err := e.view(n)
		if err == nil && v.own(name(n)).healthy && v.leader != 0 {
			return v
		}
		if time.Now().After(end) {
			e.t.Fatalf("%s is not healthy after %v: %v, %+v", name(n), patience, err, v)
		}
	}
}
