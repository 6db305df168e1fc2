package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/protobuf/proto"

	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	"github.com/cosi-os/cosi/engine/runtime/server"
	"github.com/cosi-os/cosi/engine/runtime/state"
	"github.com/cosi-os/cosi/engine/runtime/state/encoded"
	"github.com/cosi-os/cosi/engine/runtime/state/log"
	"github.com/cosi-os/cosi/engine/runtime/state/memory"
	"github.com/cosi-os/cosi/tools/client"
	"github.com/cosi-os/cosi/tools/pki"
)

const history = 64

// serve serves a state on a socket and returns its endpoint.
func serve(t *testing.T, s state.State) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	start(t, listener, s)
	return "unix://" + path
}

// serveTLS serves a state to who has a certificate, and returns the flags for one that has.
func serveTLS(t *testing.T, s state.State) []string {
	t.Helper()
	m := pki.Maker{Now: time.Now(), Rand: rand.Reader}
	made := func(p *pki.Pair, err error) *pki.Pair {
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	ca := made(m.CA("lab"))
	node, me := made(m.Node(ca, "node1")), made(m.Client(ca, "me", pki.RoleAdmin))
	serving, err := tls.X509KeyPair(node.CertPEM, node.KeyPEM)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(ca.Certificate)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	start(t, listener, s, grpc.Creds(credentials.NewTLS(&tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{serving}, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert,
	})))
	config := filepath.Join(t.TempDir(), "config.yaml")
	known := client.Config{Contexts: map[string]*client.Context{"lab": {
		Node: "node1", CA: string(ca.CertPEM), Certificate: string(me.CertPEM), Key: string(me.KeyPEM),
	}}}
	if err := known.Save(config); err != nil {
		t.Fatal(err)
	}
	return []string{"--endpoint", listener.Addr().String(), "--config", config, "--context", "lab"}
}

func start(t *testing.T, listener net.Listener, s state.State, options ...grpc.ServerOption) {
	t.Helper()
	g := grpc.NewServer(append(server.Options(), options...)...)
	server.New(func(context.Context) (state.State, error) { return s, nil }).Register(g)
	done := make(chan error, 1)
	go func() { done <- g.Serve(listener) }()
	t.Cleanup(func() { g.Stop(); <-done })
}

func limits(state.Kind) memory.Limits { return memory.Limits{Events: history} }

func store() *memory.Store { return memory.New(memory.Options{Limits: limits}) }

// findings checks a server, and returns the rules that it breaks.
func findings(t *testing.T, args ...string) (broken []string, code int) {
	t.Helper()
	var out, errs bytes.Buffer
	code = run(t.Context(), append([]string{"-o", "json", "--timeout", "5s"}, args...), &out, &errs)
	if errs.Len() > 0 {
		t.Errorf("said %s", errs.String())
	}
	rules := 0
	for line := range strings.Lines(out.String()) {
		var f finding
		if err := json.Unmarshal([]byte(line), &f); err != nil {
			t.Fatal(err)
		}
		rules++
		if f.Outcome == "broken" {
			broken = append(broken, f.Rule)
		}
	}
	if rules < 60 {
		t.Errorf("%d rules; want them all", rules)
	}
	return broken, code
}

func TestOurServerKeepsEveryRule(t *testing.T) {
	durable, err := log.Open(t.TempDir(), log.Options{Limits: limits})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { durable.Close() })
	inMemory := store()
	for name, c := range map[string]struct {
		state state.State
		at    []string
	}{
		"in memory, on a socket": {inMemory, []string{"--endpoint", serve(t, inMemory)}},
		"durable, over TLS":      {durable, serveTLS(t, durable)},
	} {
		t.Run(name, func(t *testing.T) {
			for range 2 { // it need not be empty
				if broken, code := findings(t, append(c.at, "--extended", "--history", "64")...); code != exitKept || broken != nil {
					t.Errorf("exit code %d, broken %q", code, broken)
				}
			}
			for _, name := range []string{"Things", "OtherThings"} {
				if all, _ := c.state.List(t.Context(), state.Kind{Namespace: "default", Type: name + ".test.cosi.dev"}, state.Query{}); len(all) > 0 {
					t.Errorf("%d resources of a fixed name", len(all))
				}
			}
		})
	}
}

// Servers with one mistake each.
type (
	unsorted  struct{ state.State }
	overwrite struct{ state.State }
	forceful  struct{ state.State }
	unmarked  struct{ state.State }
	careless  struct{ state.State }
)

func (s unsorted) List(ctx context.Context, k state.Kind, q state.Query) ([]encoded.Resource, error) {
	all, err := s.State.List(ctx, k, q)
	slices.Reverse(all)
	return all, err
}

func (s overwrite) Create(ctx context.Context, r *resourcepb.Resource, o state.WriteOptions) (*resourcepb.Resource, error) {
	created, err := s.State.Create(ctx, r, o)
	if errors.Is(err, state.ErrExists) {
		return r, nil
	}
	return created, err
}

func (s forceful) Destroy(ctx context.Context, p state.Pointer, o state.WriteOptions) error {
	if err := s.State.Destroy(ctx, p, o); !errors.Is(err, state.ErrFinalizers) {
		return err
	}
	return nil
}

func (s unmarked) Watch(ctx context.Context, w state.WatchRequest) (state.Watch, error) {
	watch, err := s.State.Watch(ctx, w)
	return unmarkedWatch{watch}, err
}

type unmarkedWatch struct{ state.Watch }

func (w unmarkedWatch) Next(ctx context.Context) ([]*state.Event, error) {
	events, err := w.Watch.Next(ctx)
	for i, e := range events {
		events[i] = proto.CloneOf(e)
		events[i].Old = nil
	}
	return events, err
}

func (s careless) Update(ctx context.Context, r *resourcepb.Resource, o state.WriteOptions) (*resourcepb.Resource, error) {
	updated, err := s.State.Update(ctx, r, o)
	if errors.Is(err, state.ErrConflict) {
		return r, nil
	}
	return updated, err
}

func TestAMistakeIsNamed(t *testing.T) {
	for want, s := range map[string]state.State{
		"List is sorted by id":                                            unsorted{store()},
		"Create refuses a name that is taken":                             overwrite{store()},
		"Destroy checks existence, owner and finalizers in this order":    forceful{store()},
		"Every live event has a bookmark, and old is set on updates only": unmarked{store()},
		"Update checks existence, owner, version and phase in this order": careless{store()},
	} {
		broken, code := findings(t, "--endpoint", serve(t, s))
		if code != exitBroken || !slices.Contains(broken, want) || len(broken) > 12 {
			t.Errorf("exit code %d, broken %q; want %q", code, broken, want)
		}
	}
}

func TestWhatCannotBeCheckedIsNoVerdict(t *testing.T) {
	for want, args := range map[string][]string{
		"cannot be reached":    {"--endpoint", "unix:///nowhere"},
		`"endpoint" not set`:   {},
		"--run: error parsing": {"--endpoint", "unix:///nowhere", "--run", "("},
		"no context is chosen: --endpoint is unix:///PATH, or --context": {"--endpoint", "foo", "--config", filepath.Join(t.TempDir(), "none")},
		"must be one of text, json":                                      {"--endpoint", "unix:///nowhere", "-o", "xml"},
		"no rule was checked":                                            {"--endpoint", serve(t, store()), "--run", "no such rule"},
		"unknown command \"more\"":                                       {"--endpoint", "unix:///nowhere", "more"},
	} {
		var out, errs bytes.Buffer
		if code := run(t.Context(), args, &out, &errs); code != exitUnchecked || !strings.Contains(errs.String(), want) {
			t.Errorf("%q: exit code %d, %s; want %q", args, code, errs.String(), want)
		}
	}
}
