package etcdguard

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"

	etcdpb "github.com/cosi-os/cosi/api/cosi/etcd/v1alpha1"
)

// poll is how often it is asked whether the leader has moved.
const poll = 100 * time.Millisecond

// cluster is a connection to etcd.
type cluster struct {
	config *etcdpb.EtcdGuard
	tls    *tls.Config
	client *clientv3.Client
}

// connect fails when the configuration cannot work; whether etcd is there shows with the first call.
func connect(config *etcdpb.EtcdGuard) (*cluster, error) {
	c := &cluster{config: config}
	var err error
	if c.tls, err = tlsOf(config); err != nil {
		return nil, err
	}
	c.client, err = c.dial(clientv3.Config{Endpoints: config.GetEndpoints()})
	return c, err
}

func (c *cluster) close() { _ = c.client.Close() }

func tlsOf(config *etcdpb.EtcdGuard) (*tls.Config, error) {
	t := &tls.Config{MinVersion: tls.VersionTLS12}
	if config.GetCa() != "" {
		t.RootCAs = x509.NewCertPool()
		if !t.RootCAs.AppendCertsFromPEM([]byte(config.GetCa())) {
			return nil, errors.New("ca: there is no PEM certificate in it")
		}
	}
	if config.GetCertificate() != "" || config.GetKey() != "" {
		pair, err := tls.X509KeyPair([]byte(config.GetCertificate()), []byte(config.GetKey()))
		if err != nil {
			return nil, fmt.Errorf("certificate and key: %w", err)
		}
		t.Certificates = []tls.Certificate{pair}
	}
	return t, nil
}

// dialOne returns a client of one member. Unlike one of several, it does not wait for a member that cannot be reached: its calls say why.
func (c *cluster) dialOne(url string) (*clientv3.Client, error) {
	now := func(ctx context.Context, method string, request, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, options ...grpc.CallOption) error {
		return invoke(ctx, method, request, reply, conn, append(options, grpc.WaitForReady(false))...)
	}
	return c.dial(clientv3.Config{Endpoints: []string{url}, MaxUnaryRetries: 3, DialOptions: []grpc.DialOption{grpc.WithChainUnaryInterceptor(now)}})
}

func (c *cluster) dial(config clientv3.Config) (*clientv3.Client, error) {
	config.Logger = zap.NewNop()
	if slices.ContainsFunc(config.Endpoints, func(e string) bool { return strings.HasPrefix(e, "https:") }) {
		config.TLS = c.tls
	}
	return clientv3.New(config)
}

// member is one as it was seen.
type member struct {
	id      uint64
	name    string
	url     string
	voter   bool
	healthy bool
	err     error // why it is not

	leader  uint64 // what it takes for the leader
	term    uint64
	applied uint64
}

// view is the cluster as it was seen.
type view struct {
	members []member // by name
	leader  uint64
	lock    lock
}

// inspect looks at all members, at once, and at the lock. Members that do not answer are unhealthy; it fails when etcd does not say which
// members there are, or who holds the lock, or when the node's is not among them.
func (c *cluster) inspect(ctx context.Context) (*view, error) {
	list, err := c.client.MemberList(ctx)
	if err != nil {
		return nil, fmt.Errorf("members: %w", err)
	}
	// A member that is silent must not take the time that the others' answers are worth.
	early, cancel := context.WithTimeout(ctx, remaining(ctx)*3/4)
	defer cancel()
	v := &view{members: make([]member, len(list.Members))}
	var probes sync.WaitGroup
	for i, m := range list.Members {
		v.members[i] = member{id: m.ID, name: m.Name, voter: !m.IsLearner}
		if len(m.ClientURLs) > 0 {
			v.members[i].url = m.ClientURLs[0]
		}
		probes.Go(func() { c.probe(early, &v.members[i]) })
	}
	probes.Wait()
	slices.SortFunc(v.members, func(a, b member) int { return cmp.Compare(a.name, b.name) })
	v.leader = leaderOf(v.members)
	if v.own(c.config.GetMember()).id == 0 {
		return v, fmt.Errorf("etcd has no member %q", c.config.GetMember())
	}
	v.lock, err = c.held(ctx)
	return v, err
}

// probe finds out how m is. It is healthy when it answers a linearizable read: for that it has applied all that a quorum has.
func (c *cluster) probe(ctx context.Context, m *member) {
	if m.url == "" {
		m.err = errors.New("it has not started")
		return
	}
	client, err := c.dialOne(m.url)
	if err == nil {
		defer client.Close()
		if m.voter { // a learner refuses it
			_, err = client.Get(ctx, lockKey)
		}
	}
	if err == nil {
		var st *clientv3.StatusResponse
		if st, err = client.Status(ctx, m.url); err == nil {
			m.leader, m.term, m.applied = st.Leader, st.RaftTerm, st.RaftAppliedIndex
			if len(st.Errors) > 0 {
				err = errors.New(strings.Join(st.Errors, ", "))
			}
		}
	}
	m.healthy, m.err = err == nil, err
}

// leaderOf is what the members of the latest term take for the leader.
func leaderOf(members []member) uint64 {
	latest := slices.MaxFunc(members, func(a, b member) int { return cmp.Or(cmp.Compare(a.term, b.term), cmp.Compare(a.leader, b.leader)) })
	return latest.leader
}

// own is the member of that name, or none.
func (v *view) own(name string) member {
	for _, m := range v.members {
		if m.name == name {
			return m
		}
	}
	return member{}
}

func (v *view) name(id uint64) string {
	for _, m := range v.members {
		if m.id == id {
			return m.name
		}
	}
	return ""
}

// count returns how many voters there are, how many of them are healthy, and how many it takes.
func (v *view) count() (voters, healthy, quorum int) {
	for _, m := range v.members {
		if m.voter {
			voters++
			if m.healthy {
				healthy++
			}
		}
	}
	return voters, healthy, voters/2 + 1
}

// spare fails when the cluster has no quorum without the member of that name, and says who is missing. A learner can always be spared.
func (v *view) spare(name string) error {
	own := v.own(name)
	voters, healthy, quorum := v.count()
	if !own.voter {
		return nil
	}
	if own.healthy {
		healthy--
	}
	if healthy >= quorum {
		return nil
	}
	text := fmt.Sprintf("without %q %d of %d voters would be healthy, fewer than the quorum of %d", name, healthy, voters, quorum)
	for _, m := range v.members {
		if m.voter && !m.healthy {
			text += fmt.Sprintf("; %q is not: %v", m.name, m.err)
		}
	}
	return errors.New(text)
}

// moveLeader has the best follower lead if the node's member does, and waits until it is so.
func (c *cluster) moveLeader(ctx context.Context, v *view) error {
	own := v.own(c.config.GetMember())
	if v.leader != own.id {
		return nil
	}
	best, ok := v.bestFollower()
	if !ok {
		return errors.New("there is no healthy follower")
	}
	client, err := c.dialOne(own.url)
	if err != nil {
		return err
	}
	defer client.Close()
	_, err = client.MoveLeader(ctx, best.id)
	for err == nil {
		st, failed := client.Status(ctx, best.url)
		if failed == nil && st.Leader != 0 && st.Leader != own.id {
			v.leader = st.Leader
			return nil
		}
		select {
		case <-ctx.Done():
			err = cmp.Or(failed, ctx.Err())
		case <-time.After(poll):
		}
	}
	return fmt.Errorf("to %q: %w", best.name, err)
}

// bestFollower is the healthy voter that has applied most, of those that do not lead.
func (v *view) bestFollower() (best member, ok bool) {
	for _, m := range v.members {
		if m.voter && m.healthy && m.id != v.leader && (!ok || m.applied > best.applied) {
			best, ok = m, true
		}
	}
	return best, ok
}
