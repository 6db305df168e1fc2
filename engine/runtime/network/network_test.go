package network

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	machinepb "github.com/cosi-os/cosi/api/cosi/machine/v1alpha1"
	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	metapb "github.com/cosi-os/cosi/api/cosi/resource/meta"
	"github.com/cosi-os/cosi/engine/runtime/access"
	"github.com/cosi-os/cosi/engine/runtime/audit"
	"github.com/cosi-os/cosi/engine/runtime/limit"
	"github.com/cosi-os/cosi/engine/runtime/output"
	"github.com/cosi-os/cosi/engine/runtime/peer"
	"github.com/cosi-os/cosi/engine/runtime/server"
	"github.com/cosi-os/cosi/engine/runtime/state"
	"github.com/cosi-os/cosi/engine/runtime/state/memory"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/protobuf/proto"
)

// patience is how long something may take on a busy machine.
const patience = 30 * time.Second

var (
	issued  = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	expires = time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)
	between = time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC)
)

// ca issues certificates that are valid from issued to expires.
type ca struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  string
}

func newCA(t *testing.T) *ca {
	c := &ca{t: t}
	pair := c.issue(&x509.Certificate{
		Subject: pkix.Name{CommonName: "CA"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	})
	c.cert, c.key = pair.Leaf, pair.PrivateKey.(*ecdsa.PrivateKey)
	c.pem = encode("CERTIFICATE", c.cert.Raw)
	return c
}

func (c *ca) issue(template *x509.Certificate) tls.Certificate {
	c.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		c.t.Fatal(err)
	}
	template.SerialNumber, _ = rand.Int(rand.Reader, big.NewInt(1<<62))
	if template.NotAfter.IsZero() {
		template.NotBefore, template.NotAfter = issued, expires
	}
	parent, signer := c.cert, c.key
	if parent == nil {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		c.t.Fatal(err)
	}
	leaf, _ := x509.ParseCertificate(der)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

func (c *ca) client(organisation string) tls.Certificate {
	return c.issue(&x509.Certificate{Subject: pkix.Name{CommonName: "c", Organization: []string{organisation}}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
}

func (c *ca) server(name string) (certificate, key string) {
	pair := c.issue(&x509.Certificate{DNSNames: []string{name}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
	der, _ := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	return encode("CERTIFICATE", pair.Leaf.Raw), encode("PRIVATE KEY", der)
}

func encode(typ string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: typ, Bytes: der}))
}

// node is a Gate on a real socket over a real store, with a clock of its own.
type node struct {
	t       *testing.T
	store   *memory.Store
	address string

	mu      sync.Mutex // guards the fields below
	now     time.Time
	listens bool
	refusal string
}

func newNode(t *testing.T) *node {
	t.Helper()
	n := &node{t: t, store: memory.New(memory.Options{}), now: between}
	n.run(n.store)
	return n
}

// run starts a Gate that sees the store as s; it ends with the test or with stop.
func (n *node) run(s state.State) (stop func()) {
	t := n.t
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n.address = listener.Addr().String()
	records := audit.Defaults
	records.State, records.Together, records.Warn = n.store, func(string) bool { return true }, func(err error) { t.Error(err) }
	log, err := audit.Open(t.Context(), records)
	if err != nil {
		t.Fatal(err)
	}
	gate := New(Config{
		State: s, Audit: log, Limits: limit.New(nil), Definitions: func(string) *metapb.ResourceDefinitionSpec { return &metapb.ResourceDefinitionSpec{} }, Output: output.New(s),
		Listen: func() (net.Listener, error) { return listener, nil },
		Server: func(o ...grpc.ServerOption) *grpc.Server {
			g := grpc.NewServer(append(server.Options(), o...)...)
			server.New(peer.State).Register(g)
			return g
		},
		Name:      func() string { return "n1" },
		Listening: func() { n.set(func() { n.listens = true }) },
		Refused:   func(why string) { n.set(func() { n.refusal = why }) },
		Now:       func() (now time.Time) { n.set(func() { now = n.now }); return now },
	})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- gate.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("Run: %v", err)
		}
		listener.Close()
	})
	t.Cleanup(stop)
	return stop
}

func (n *node) set(f func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	f()
}

func (n *node) clock(now time.Time) { n.set(func() { n.now = now }) }

func (n *node) listening() (yes bool) { n.set(func() { yes = n.listens }); return yes }

func (n *node) refused() (why string) { n.set(func() { why = n.refusal }); return why }

// apply writes the Certificates and waits until the Gate has read them.
func (n *node) apply(c *machinepb.Certificates) *machinepb.CertificatesStatus {
	n.t.Helper()
	content, _ := proto.Marshal(c)
	r := &resourcepb.Resource{Metadata: &resourcepb.Metadata{Namespace: Certificates.Namespace, Type: Certificates.Type, Id: Node, Phase: state.PhaseRunning}, Spec: &resourcepb.Spec{ProtoSpec: content}}
	old, err := n.store.Get(context.Background(), state.PointerTo(r))
	if err == nil {
		r.Metadata = proto.CloneOf(old.GetMetadata())
		r, err = n.store.Update(context.Background(), r, state.WriteOptions{})
	} else {
		r, err = n.store.Create(context.Background(), r, state.WriteOptions{})
	}
	if err != nil {
		n.t.Fatal(err)
	}
	var s *machinepb.CertificatesStatus
	n.eventually("the certificates are read", func() bool { s = n.status(); return s.GetObservedVersion() == r.GetMetadata().GetVersion() })
	return s
}

func (n *node) status() *machinepb.CertificatesStatus {
	s := &machinepb.CertificatesStatus{}
	if r, err := n.store.Get(context.Background(), state.Pointer{Kind: Statuses, ID: Node}); err == nil {
		proto.Unmarshal(r.GetSpec().GetProtoSpec(), s)
	}
	return s
}

func (n *node) eventually(what string, is func() bool) {
	n.t.Helper()
	for end := time.Now().Add(patience); !is(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			n.t.Fatalf("still not so: %s", what)
		}
	}
}

// dial returns a client that accepts any server.
func (n *node) dial(certificate tls.Certificate) resourcepb.StateClient {
	n.t.Helper()
	config := &tls.Config{
		InsecureSkipVerify:   true,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &certificate, nil },
	}
	conn, err := grpc.NewClient("passthrough:///"+n.address, grpc.WithTransportCredentials(credentials.NewTLS(config)))
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { conn.Close() })
	return resourcepb.NewStateClient(conn)
}

func get(c resourcepb.StateClient) error {
	_, err := c.Get(context.Background(), &resourcepb.GetRequest{Namespace: Statuses.Namespace, Type: Statuses.Type, Id: Node})
	return err
}

// watch opens a stream that nothing happens on.
func (n *node) watch(c resourcepb.StateClient) grpc.ServerStreamingClient[resourcepb.WatchResponse] {
	n.t.Helper()
	stream, err := c.Watch(n.t.Context(), &resourcepb.WatchRequest{Namespace: "config", Type: "Nothing.example.org"})
	if err != nil {
		n.t.Fatal(err)
	}
	if _, err := stream.Recv(); err != nil {
		n.t.Fatal(err)
	}
	return stream
}

func TestNothingListensWithoutAClientCA(t *testing.T) {
	n := newNode(t)
	s := n.apply(&machinepb.Certificates{})
	if s.GetReason() != reasonInvalid || n.listening() {
		t.Errorf("without a CA: %v, listening %v", s, n.listening())
	}
	if s := n.apply(&machinepb.Certificates{ClientCas: []string{newCA(t).pem}}); !s.GetReady() || !s.GetSelfSigned() || s.GetNames()[0] != "n1" {
		t.Errorf("with a CA: %v", s)
	}
	n.eventually("it listens", n.listening)
}

func TestAChangeTakesEffectWithoutARestart(t *testing.T) {
	n, first, second := newNode(t), newCA(t), newCA(t)
	s := n.apply(&machinepb.Certificates{ClientCas: []string{first.pem}})
	own := s.GetFingerprint()
	old := n.dial(first.client("admin"))
	if err := get(old); err != nil {
		t.Fatal(err)
	}
	stream := n.watch(old)

	certificate, key := first.server("n2")
	s = n.apply(&machinepb.Certificates{ClientCas: []string{second.pem}, ServingCertificate: certificate, ServingKey: key})
	if s.GetSelfSigned() || s.GetNames()[0] != "n2" || s.GetFingerprint() == own {
		t.Errorf("status = %v", s)
	}
	if _, err := stream.Recv(); err == nil {
		t.Error("a stream of the former CA goes on")
	}
	if err := get(old); err == nil {
		t.Error("a client of the former CA is let in")
	}
	if err := get(n.dial(second.client("admin"))); err != nil {
		t.Errorf("a client of the new CA: %v", err)
	}
	if s = n.apply(&machinepb.Certificates{ClientCas: []string{second.pem}}); s.GetFingerprint() != own {
		t.Error("the node made itself a second certificate")
	}
}

func TestASlipLeavesTheFormerCertificatesInForce(t *testing.T) {
	n, c := newNode(t), newCA(t)
	n.apply(&machinepb.Certificates{ClientCas: []string{c.pem}})
	certificate, key := c.server("n1")
	leaf := encode("CERTIFICATE", c.client("admin").Leaf.Raw)
	_, otherKey := c.server("n1")
	for want, bad := range map[string]*machinepb.Certificates{
		"client_cas[1]: is no PEM certificate": {ClientCas: []string{c.pem, "x"}},
		"client_cas[0]: holds a PEM block":     {ClientCas: []string{key}},
		"is no CA certificate":                 {ClientCas: []string{leaf}},
		"one of them is missing":               {ClientCas: []string{c.pem}, ServingCertificate: certificate},
		"private key does not match":           {ClientCas: []string{c.pem}, ServingCertificate: certificate, ServingKey: otherKey},
		"has no DNS name":                      {ClientCas: []string{c.pem}, ServingCertificate: leaf, ServingKey: key},
	} {
		if want == "has no DNS name" {
			pair := c.client("admin")
			der, _ := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
			bad.ServingCertificate, bad.ServingKey = encode("CERTIFICATE", pair.Leaf.Raw), encode("PRIVATE KEY", der)
		}
		s := n.apply(bad)
		if s.GetReady() || !strings.Contains(s.GetMessage(), want) || !strings.Contains(s.GetMessage(), "stays in force") || strings.Contains(s.GetMessage(), "PRIVATE") && want != "client_cas[0]: holds a PEM block" {
			t.Errorf("%s: %v", want, s)
		}
	}
	if err := get(n.dial(c.client("admin"))); err != nil {
		t.Errorf("a client: %v", err)
	}
}

func TestRemovedCertificatesCloseTheDoor(t *testing.T) {
	n, c := newNode(t), newCA(t)
	n.apply(&machinepb.Certificates{ClientCas: []string{c.pem}})
	client := n.dial(c.client("admin"))
	stream := n.watch(client)
	if err := n.store.Destroy(context.Background(), state.Pointer{Kind: Certificates, ID: Node}, state.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err == nil {
		t.Error("a stream goes on")
	}
	if err := get(client); err == nil {
		t.Error("a client is let in")
	}
	n.eventually("the status says so", func() bool { return n.status().GetReason() == reasonNoTrustAnchor })
}

func TestExpiryEndsWhatIsOpen(t *testing.T) {
	n, c := newNode(t), newCA(t)
	n.apply(&machinepb.Certificates{ClientCas: []string{c.pem}})
	client := n.dial(c.client("admin"))
	stream := n.watch(client)
	n.clock(expires.Add(time.Second))
	if err := get(client); err == nil {
		t.Error("a request with an expired certificate is answered")
	}
	n.apply(&machinepb.Certificates{ClientCas: []string{c.pem}}) // What a minute does, at once.
	if _, err := stream.Recv(); err == nil {
		t.Error("a stream of an expired certificate goes on")
	}
}

func TestAWrongClockIsSaidInWords(t *testing.T) {
	n, c := newNode(t), newCA(t)
	certificate, key := c.server("n1")
	n.clock(time.Date(2099, 1, 1, 0, 0, 0, 0, time.UTC))
	s := n.apply(&machinepb.Certificates{ClientCas: []string{c.pem}, ServingCertificate: certificate, ServingKey: key})
	if s.GetReady() || s.GetReason() != reasonClockImplausible || !strings.Contains(s.GetMessage(), "2099-01-01") || !strings.Contains(s.GetMessage(), "2027-01-01") {
		t.Errorf("status = %v", s)
	}
	if err := get(n.dial(newCA(t).client("admin"))); err == nil || n.refused() != "" {
		t.Errorf("a stranger: %v; the console must not say %q", err, n.refused())
	}
	if err := get(n.dial(c.client("admin"))); err == nil {
		t.Error("a client is let in")
	}
	n.eventually("the refusal is said", func() bool { return strings.Contains(n.refused(), "this node's clock says 2099-01-01") })
	n.clock(issued.Add(-time.Hour))
	if s := n.apply(&machinepb.Certificates{ClientCas: []string{c.pem}, ServingCertificate: certificate, ServingKey: key}); s.GetReason() != reasonClockImplausible {
		t.Errorf("before it begins: %v", s)
	}
}

func TestOnlyTLS13(t *testing.T) {
	n, c := newNode(t), newCA(t)
	n.apply(&machinepb.Certificates{ClientCas: []string{c.pem}})
	n.eventually("it listens", n.listening)
	conn, err := tls.Dial("tcp", n.address, &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12, Certificates: []tls.Certificate{c.client("admin")}})
	if err == nil {
		conn.Close()
		t.Error("TLS 1.2 is spoken")
	}
}

func TestVerify(t *testing.T) {
	c := newCA(t)
	parsed, err := parseTrust(&resourcepb.Metadata{}, &machinepb.Certificates{ClientCas: []string{c.pem}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	serverPair := c.issue(&x509.Certificate{Subject: pkix.Name{Organization: []string{"admin"}}, DNSNames: []string{"n1"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
	for name, test := range map[string]struct {
		chain []*x509.Certificate
		now   time.Time
		role  access.Role
		err   error
	}{
		"admin":                  {[]*x509.Certificate{c.client("admin").Leaf}, between, access.Admin, nil},
		"reader":                 {[]*x509.Certificate{c.client("reader").Leaf}, between, access.Reader, nil},
		"no role":                {[]*x509.Certificate{c.client("root").Leaf}, between, "", errRefused},
		"nothing":                {nil, between, "", errRefused},
		"a server's":             {[]*x509.Certificate{serverPair.Leaf}, between, "", errRefused},
		"another CA's":           {[]*x509.Certificate{newCA(t).client("admin").Leaf}, between, "", errRefused},
		"expired":                {[]*x509.Certificate{c.client("admin").Leaf}, expires.Add(time.Hour), "", errClock},
		"not yet valid":          {[]*x509.Certificate{c.client("admin").Leaf}, issued.Add(-time.Hour), "", errClock},
		"another CA's, too late": {[]*x509.Certificate{newCA(t).client("admin").Leaf}, expires.Add(time.Hour), "", errRefused},
	} {
		got, err := (&policy{trust: parsed}).admit(test.chain, test.now)
		if !errors.Is(err, test.err) || errors.Is(err, errClock) != errors.Is(test.err, errClock) {
			t.Errorf("%s: %v; want %v", name, err, test.err)
		}
		if err == nil && got.person.Role != test.role {
			t.Errorf("%s: role %q; want %q", name, got.person.Role, test.role)
		}
	}
}

func FuzzParseTrust(f *testing.F) {
	pair, err := makePair("n1")
	if err != nil {
		f.Fatal(err)
	}
	content, err := proto.Marshal(pair)
	if err != nil {
		f.Fatal(err)
	}
	own := &resourcepb.Resource{Spec: &resourcepb.Spec{ProtoSpec: content}}
	f.Add(pair.GetCertificate(), "", "")
	f.Add("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "x", "y")
	f.Fuzz(func(t *testing.T, ca, certificate, key string) {
		c := &machinepb.Certificates{ClientCas: []string{ca}, ServingCertificate: certificate, ServingKey: key}
		got, err := parseTrust(&resourcepb.Metadata{}, c, own)
		if err == nil && (len(got.cas) == 0 || got.serving.Leaf == nil) {
			t.Error("neither an error nor a trust")
		}
	})
}
