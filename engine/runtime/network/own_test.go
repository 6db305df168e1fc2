package network

import (
	"context"
	"crypto/tls"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	machinepb "github.com/cosi-os/cosi/api/cosi/machine/v1alpha1"
	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	"github.com/cosi-os/cosi/engine/runtime/output"
	"github.com/cosi-os/cosi/engine/runtime/state"
	"github.com/cosi-os/cosi/engine/runtime/state/memory"
	"google.golang.org/protobuf/proto"
)

var ownKey = state.Pointer{Kind: ServingKeys, ID: Node}

// served is the fingerprint of what the node shows to a client.
func (n *node) served() string {
	n.t.Helper()
	conn, err := tls.Dial("tcp", n.address, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}})
	if err != nil {
		n.t.Fatal(err)
	}
	defer conn.Close()
	return fingerprint(conn.ConnectionState().PeerCertificates[0])
}

func TestTheNodesOwnPairOutlivesTheGate(t *testing.T) {
	n := &node{t: t, store: memory.New(memory.Options{}), now: between}
	stop := n.run(n.store)
	own := n.apply(&machinepb.Certificates{ClientCas: []string{newCA(t).pem}}).GetFingerprint()
	if r, err := n.store.Get(t.Context(), ownKey); err != nil || r.GetMetadata().GetOwner() != output.Owner {
		t.Errorf("the pair is kept as %v, %v; want the runtime's", r.GetMetadata(), err)
	}
	stop()
	n.set(func() { n.listens = false })
	n.run(n.store)
	n.eventually("it listens again", n.listening)
	if again := n.served(); again != own || n.status().GetFingerprint() != own {
		t.Errorf("it serves with %s and shows %s; want %s again", again, n.status().GetFingerprint(), own)
	}

	// Other clients are let in, with the same pair.
	if s := n.apply(&machinepb.Certificates{ClientCas: []string{newCA(t).pem}}); s.GetFingerprint() != own {
		t.Errorf("with another CA it serves with %s; want %s", s.GetFingerprint(), own)
	}
	if err := n.store.Destroy(t.Context(), ownKey, state.WriteOptions{Owner: output.Owner}); err != nil {
		t.Fatal(err)
	}
	n.eventually("another pair is made for one that was destroyed", func() bool {
		s := n.status()
		return s.GetReady() && s.GetFingerprint() != own && s.GetFingerprint() == n.served()
	})
}

// full is a state that takes no ServingKey while it is full.
type full struct {
	state.State
	is atomic.Bool
}

func (f *full) Create(ctx context.Context, r *resourcepb.Resource, o state.WriteOptions) (*resourcepb.Resource, error) {
	if state.PointerTo(r) == ownKey && f.is.Load() {
		return nil, fmt.Errorf("%w: the disk is full", state.ErrNoSpace)
	}
	return f.State.Create(ctx, r, o)
}

func TestAPairThatIsNotKeptIsNotServedWith(t *testing.T) {
	n, c := &node{t: t, store: memory.New(memory.Options{}), now: between}, newCA(t)
	disk := &full{State: n.store}
	disk.is.Store(true)
	n.run(disk)
	s := n.apply(&machinepb.Certificates{ClientCas: []string{c.pem}})
	if s.GetReason() != reasonInvalid || !strings.Contains(s.GetMessage(), "serving key: ") || !strings.Contains(s.GetMessage(), "the disk is full") || n.listening() {
		t.Errorf("status %v, listening %v; want that it says why it does not", s, n.listening())
	}
	disk.is.Store(false)
	if s := n.apply(&machinepb.Certificates{ClientCas: []string{c.pem}}); !s.GetReady() {
		t.Errorf("with space again: %v", s)
	}
}

func TestOnlyAPairThatServesIsKept(t *testing.T) {
	one, err := makePair("n1")
	if err != nil {
		t.Fatal(err)
	}
	another, err := makePair("n1")
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		key  *machinepb.ServingKey
		good bool
	}{
		"its own":  {one, true},
		"of two":   {&machinepb.ServingKey{Certificate: one.GetCertificate(), Key: another.GetKey()}, false},
		"no key":   {&machinepb.ServingKey{Certificate: one.GetCertificate()}, false},
		"no PEM":   {&machinepb.ServingKey{Certificate: "x", Key: "y"}, false},
		"reversed": {&machinepb.ServingKey{Certificate: one.GetKey(), Key: one.GetCertificate()}, false},
	} {
		content, err := proto.Marshal(c.key)
		if err != nil {
			t.Fatal(err)
		}
		if err := CheckServingKey(content); (err == nil) != c.good {
			t.Errorf("%s: %v", name, err)
		} else if err != nil && strings.Contains(err.Error(), strings.Split(one.GetKey(), "\n")[1]) {
			t.Errorf("%s: the error quotes the key: %v", name, err)
		}
	}
}
