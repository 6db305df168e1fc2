package client

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"

	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	"github.com/cosi-os/cosi/tools/pki"
)

// listener serves a State that implements nothing: an UNIMPLEMENTED answer proves that the connection was accepted.
func serve(t *testing.T, l net.Listener, options ...grpc.ServerOption) {
	t.Helper()
	server := grpc.NewServer(options...)
	resourcepb.RegisterStateServer(server, resourcepb.UnimplementedStateServer{})
	done := make(chan struct{})
	go func() { defer close(done); _ = server.Serve(l) }()
	t.Cleanup(func() { server.Stop(); <-done })
}

type lab struct {
	now      time.Time
	ca, node *pki.Pair
	endpoint string
}

func pair(t *testing.T, p *pki.Pair, err error) *pki.Pair {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func (l *lab) maker() pki.Maker { return pki.Maker{Now: l.now, Rand: rand.Reader} }

func newLab(t *testing.T) *lab {
	t.Helper()
	l := &lab{now: time.Now()}
	l.serve(t)
	return l
}

// serve makes a CA and a node, and serves as that.
func (l *lab) serve(t *testing.T) {
	t.Helper()
	ca, err := l.maker().CA("lab")
	l.ca = pair(t, ca, err)
	node, err := l.maker().Node(l.ca, "node1")
	l.node = pair(t, node, err)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.endpoint = listener.Addr().String()
	serving, err := tls.X509KeyPair(l.node.CertPEM, l.node.KeyPEM)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(l.ca.Certificate)
	serve(t, listener, grpc.Creds(credentials.NewTLS(&tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{serving}, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert,
	})))
}

func (l *lab) context(t *testing.T) Context {
	t.Helper()
	client, err := l.maker().Client(l.ca, "me", pki.RoleAdmin)
	client = pair(t, client, err)
	return Context{Endpoint: l.endpoint, Node: "node1", CA: string(l.ca.CertPEM), Certificate: string(client.CertPEM), Key: string(client.KeyPEM)}
}

func call(t *testing.T, c Context) error {
	t.Helper()
	client, err := Dial(c)
	if err != nil {
		return err
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	_, err = client.State.Get(ctx, &resourcepb.GetRequest{})
	return Explain(err)
}

func TestDialVerifiesTheNameAndNotTheAddress(t *testing.T) {
	l := newLab(t)
	if err := call(t, l.context(t)); Code(err) != codes.Unimplemented {
		t.Errorf("a good context: %v", err)
	}
	pinned := l.context(t)
	pinned.CA, pinned.Node, pinned.Fingerprint = "", "", pki.Fingerprint(l.node.Certificate)
	if err := call(t, pinned); Code(err) != codes.Unimplemented {
		t.Errorf("a pinned context: %v", err)
	}
}

func TestDialRefusesAndIsRefusedInWords(t *testing.T) {
	l := newLab(t)
	other := &lab{now: l.now}
	ca, err := other.maker().CA("other")
	other.ca = pair(t, ca, err)
	stranger := other.context(t)
	old := &lab{now: l.now.AddDate(-3, 0, 0), ca: l.ca}
	expired := old.context(t)
	for _, test := range []struct {
		name   string
		change func(*Context)
		want   string
	}{
		{"another name", func(c *Context) { c.Node = "node2" }, "certificate is valid for node1, not node2"},
		{"another CA", func(c *Context) { c.CA = string(other.ca.CertPEM) }, "unknown authority"},
		{"another fingerprint", func(c *Context) { c.Fingerprint = strings.Repeat("00", 32) }, "not the trusted 0000"},
		{"no client certificate", func(c *Context) { c.Certificate, c.Key = "", "" }, "wants a client certificate"},
		{"a stranger's certificate", func(c *Context) { c.Certificate, c.Key = stranger.Certificate, stranger.Key }, "refuses the client certificate"},
		{"an expired certificate", func(c *Context) { c.Certificate, c.Key = expired.Certificate, expired.Key }, "refuses the client certificate"},
		{"no CA", func(c *Context) { c.CA = "" }, "holds no CA"},
		{"no name", func(c *Context) { c.Node = "" }, "names no node"},
		{"nobody there", func(c *Context) { c.Endpoint = "127.0.0.1:1" }, "connection refused"},
		{"no endpoint", func(c *Context) { c.Endpoint = "" }, "endpoint is empty"},
	} {
		c := l.context(t)
		test.change(&c)
		if err := call(t, c); err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "desc =") {
			t.Errorf("%s: %v; want %q", test.name, err, test.want)
		}
	}
}

// TestAnExpiredNodeIsKnownByItsKeyAlone: by nothing else, and the exception is for that key only.
func TestAnExpiredNodeIsKnownByItsKeyAlone(t *testing.T) {
	l := &lab{now: time.Now().AddDate(-3, 0, 0)}
	l.serve(t)
	me := &lab{now: time.Now(), ca: l.ca, endpoint: l.endpoint}
	stranger, err := me.maker().Node(l.ca, "node1")
	stranger = pair(t, stranger, err)
	for _, test := range []struct {
		name string
		key  *pki.Pair
		want string
	}{
		{"none", nil, "the node's certificate has expired (cosictl gen renew --apply)"},
		{"a stranger's", stranger, "the node's certificate has expired"},
		{"the node's", l.node, ""},
	} {
		c := me.context(t)
		if test.key != nil {
			c.ServingKey = pki.KeyFingerprint(test.key.Certificate)
		}
		if err := call(t, c); test.want == "" && Code(err) != codes.Unimplemented || test.want != "" && !strings.Contains(err.Error(), test.want) {
			t.Errorf("with %s key: %v; want %q", test.name, err, test.want)
		}
	}
	fresh := newLab(t)
	for _, test := range []struct{ node, want string }{{"node1", ""}, {"node2", "certificate is valid for node1, not node2"}} {
		c := fresh.context(t)
		c.Node, c.ServingKey = test.node, pki.KeyFingerprint(l.node.Certificate)
		if err := call(t, c); test.want == "" && Code(err) != codes.Unimplemented || test.want != "" && !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s with another's key: %v; want %q", test.node, err, test.want)
		}
	}
}

func TestDialReachesUnixSockets(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	serve(t, listener)
	if err := call(t, Context{Endpoint: "unix://" + path}); Code(err) != codes.Unimplemented {
		t.Error(err)
	}
}

func TestKindsFallBackOnTheBuiltinOnes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	serve(t, listener)
	c, err := Dial(Context{Endpoint: "unix://" + path})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if k, err := c.Kind(t.Context(), "mounts"); err != nil || k.Type() != "MountPoints.storage.cosi.dev" {
		t.Errorf("Kind(mounts) = %v, %v", k, err)
	}
	if _, err := c.Kind(t.Context(), "mownt"); err == nil || !strings.Contains(err.Error(), "did you mean") {
		t.Errorf("Kind(mownt): %v", err)
	}
	if all, err := c.Kinds(t.Context()); err != nil || len(all.All()) < 20 {
		t.Errorf("Kinds: %v", err)
	}
}

func TestServingCertificate(t *testing.T) {
	l := newLab(t)
	certificate, err := ServingCertificate(t.Context(), l.endpoint)
	if err != nil || pki.Fingerprint(certificate) != pki.Fingerprint(l.node.Certificate) {
		t.Errorf("%v, %v", certificate, err)
	}
}

func TestAddress(t *testing.T) {
	for endpoint, want := range map[string]string{
		"node1": "node1:50000", "192.0.2.1": "192.0.2.1:50000", "192.0.2.1:1": "192.0.2.1:1", "2001:db8::1": "[2001:db8::1]:50000", "[2001:db8::1]": "[2001:db8::1]:50000", "[::1]:7": "[::1]:7",
	} {
		if got, err := Address(endpoint); err != nil || got != want {
			t.Errorf("Address(%q) = %q, %v; want %q", endpoint, got, err, want)
		}
	}
	for _, endpoint := range []string{"", "https://node1/x", "a b"} {
		if got, err := Address(endpoint); err == nil {
			t.Errorf("Address(%q) = %q", endpoint, got)
		}
	}
}
