package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	pluginpb "github.com/cosi-os/cosi/api/cosi/plugin/v1alpha1"
	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	"github.com/cosi-os/cosi/api/declaration"
	"github.com/cosi-os/cosi/engine/wire"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"
)

// patience is how long something may take on a busy machine.
const patience = 30 * time.Second

// TestMain runs the runtime itself when a test has started this binary as one.
func TestMain(m *testing.M) {
	if os.Getenv("COSI_TEST_RUNTIME") != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// command returns the runtime as a process that the test ends.
func command(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), "COSI_TEST_RUNTIME=1")
	cmd.Stderr = os.Stderr
	return cmd
}

func start(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if cmd.ProcessState == nil {
			cmd.Process.Kill()
			cmd.Wait()
		}
	})
}

// endsCleanly asks the runtime to end.
func endsCleanly(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	cmd.Process.Signal(syscall.SIGTERM)
	if err := cmd.Wait(); err != nil {
		t.Errorf("after SIGTERM: %v", err)
	}
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("still not so: %s", what)
		}
	}
}

// machine is a runtime process with this test as its PID 1.
type machine struct {
	t       *testing.T
	cmd     *exec.Cmd
	conn    *wire.Conn
	sockets string
	port    string
	stderr  bytes.Buffer // to be read when it has ended

	mu    sync.Mutex // guards downs
	downs []wire.Down
}

// boot starts a runtime with plugins as a PID 1 does.
func boot(t *testing.T, plugins ...*declaration.Declaration) *machine {
	t.Helper()
	return bootWith(t, nil, plugins...)
}

// bootWith is boot with a place for what outlives the runtime.
func bootWith(t *testing.T, storage *wire.Storage, plugins ...*declaration.Declaration) *machine {
	t.Helper()
	root, err := os.MkdirTemp("", "cosi") // t.TempDir is too long a name for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(root) })
	m := &machine{t: t, sockets: root, cmd: command(t)}
	m.cmd.Stderr = io.MultiWriter(os.Stderr, &m.stderr)
	dir := filepath.Join(root, declaration.Dir)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "usr/lib/cosi/image.json"), []byte(`{"version":"1.2.3","unpinned":true}`), 0o644); err != nil {
		t.Fatal(err)
	}
	ours, theirs := socketpair(t)
	m.conn = wire.NewConn(ours)
	m.hand(wire.FDEngine, theirs)
	m.hand(wire.FDNetwork, m.bind())
	local, err := net.Listen("unix", filepath.Join(root, "runtime.sock"))
	m.handListener(wire.FDLocal, local, err)
	for _, d := range plugins {
		data, _ := json.Marshal(d)
		if err := os.WriteFile(filepath.Join(dir, d.Name+".json"), data, 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, d.Name+".binpb"), d.Definitions, 0o644); err != nil {
			t.Fatal(err)
		}
		l, err := net.Listen("unix", m.socket(d.Name))
		m.handListener(wire.FDPluginPrefix+d.Name, l, err)
	}
	start(t, m.cmd)
	for _, file := range m.cmd.ExtraFiles {
		file.Close()
	}
	go m.receive()
	m.send(wire.Up{Hello: &wire.Hello{Version: wire.Version, Root: root, Kernel: "6.12.0", Hostname: "n1", BootID: "b", Storage: storage}})
	return m
}

func socketpair(t *testing.T) (net.Conn, *os.File) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	file := os.NewFile(uintptr(fds[0]), "engine")
	defer file.Close()
	conn, err := net.FileConn(file)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn, os.NewFile(uintptr(fds[1]), "runtime")
}

// bind binds a port without listening on it.
func (m *machine) bind() *os.File {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		m.t.Fatal(err)
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		m.t.Fatal(err)
	}
	address, err := unix.Getsockname(fd)
	if err != nil {
		m.t.Fatal(err)
	}
	m.port = fmt.Sprintf("127.0.0.1:%d", address.(*unix.SockaddrInet4).Port)
	return os.NewFile(uintptr(fd), "network")
}

func (m *machine) socket(name string) string { return filepath.Join(m.sockets, name+".sock") }

func (m *machine) handListener(name string, l net.Listener, err error) {
	if err != nil {
		m.t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	file, err := l.(*net.UnixListener).File()
	if err != nil {
		m.t.Fatal(err)
	}
	l.Close()
	m.hand(name, file)
}

func (m *machine) hand(name string, file *os.File) {
	entry := fmt.Sprintf("%s=%d", name, 3+len(m.cmd.ExtraFiles))
	m.cmd.ExtraFiles = append(m.cmd.ExtraFiles, file)
	last := len(m.cmd.Env) - 1
	if rest, ok := strings.CutPrefix(m.cmd.Env[last], wire.EnvDescriptors+"="); ok {
		m.cmd.Env[last] = wire.EnvDescriptors + "=" + rest + "," + entry
		return
	}
	m.cmd.Env = append(m.cmd.Env, wire.EnvDescriptors+"="+entry)
}

func (m *machine) send(up wire.Up) {
	m.t.Helper()
	if err := m.conn.Send(up); err != nil {
		m.t.Fatal(err)
	}
}

func (m *machine) receive() {
	for {
		var down wire.Down
		if m.conn.Receive(&down) != nil {
			return
		}
		m.mu.Lock()
		m.downs = append(m.downs, down)
		m.mu.Unlock()
	}
}

// said reports whether the runtime has told PID 1 something.
func (m *machine) said(what func(wire.Down) bool) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, down := range m.downs {
		if what(down) {
			return true
		}
	}
	return false
}

// shows reports whether a line of the console's last state contains text.
func (m *machine) shows(text string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := len(m.downs) - 1; i >= 0; i-- {
		if c := m.downs[i].Console; c != nil {
			return strings.Contains(strings.Join(c.Lines, "\n"), text)
		}
	}
	return false
}

func (m *machine) dial(socket string) *grpc.ClientConn { return dialUnix(m.t, m.socket(socket)) }

func dialUnix(t testing.TB, path string) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient("unix://"+path, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// plugin is the test in the part of a plugin.
type plugin struct {
	t      *testing.T
	name   string
	state  resourcepb.StateClient
	stream grpc.BidiStreamingClient[pluginpb.SessionRequest, pluginpb.SessionResponse]
}

// plug starts a plugin and registers it.
func (m *machine) plug(name string) *plugin {
	m.t.Helper()
	conn := m.dial(name)
	p := &plugin{t: m.t, name: name, state: resourcepb.NewStateClient(conn)}
	m.send(wire.Up{Started: &wire.Started{Name: name, PID: 100, At: time.Now()}})
	var err error
	if p.stream, err = pluginpb.NewPluginClient(conn).Session(m.t.Context(), grpc.WaitForReady(true)); err != nil {
		m.t.Fatal(err)
	}
	p.say(&pluginpb.SessionRequest{Message: &pluginpb.SessionRequest_Register{Register: &pluginpb.Register{Name: name, Version: "1"}}})
	if p.hear().GetRegistered().GetRuntimeVersion() != "1.2.3" {
		m.t.Fatal("the answer is not Registered with the image's version")
	}
	return p
}

func (p *plugin) say(r *pluginpb.SessionRequest) {
	p.t.Helper()
	if err := p.stream.Send(r); err != nil {
		p.t.Fatal(err)
	}
}

func (p *plugin) hear() *pluginpb.SessionResponse {
	p.t.Helper()
	answer, err := p.stream.Recv()
	if err != nil {
		p.t.Fatalf("plugin %s: %v", p.name, err)
	}
	return answer
}

func (p *plugin) ready() {
	p.say(&pluginpb.SessionRequest{Message: &pluginpb.SessionRequest_Ready{Ready: &pluginpb.Ready{}}})
}

// document returns a resource as a client writes it.
func document(t *testing.T, namespace, typ, id string, spec proto.Message) *resourcepb.Resource {
	t.Helper()
	content, err := proto.Marshal(spec)
	if err != nil {
		t.Fatal(err)
	}
	return &resourcepb.Resource{
		Metadata: &resourcepb.Metadata{Namespace: namespace, Type: typ, Id: id, Phase: "running"},
		Spec:     &resourcepb.Spec{ProtoSpec: content},
	}
}

// create writes a resource with an owner.
func create(t *testing.T, c resourcepb.StateClient, owner, namespace, typ, id string, spec proto.Message) {
	t.Helper()
	r := document(t, namespace, typ, id, spec)
	r.Metadata.Owner = owner
	if _, err := c.Create(t.Context(), &resourcepb.CreateRequest{Resource: r, Options: &resourcepb.CreateOptions{Owner: owner}}); err != nil {
		t.Fatalf("create %s/%s: %v", typ, id, err)
	}
}

// read returns the content of a resource.
func read(ctx context.Context, c resourcepb.StateClient, namespace, typ, id string, into proto.Message) error {
	answer, err := c.Get(ctx, &resourcepb.GetRequest{Namespace: namespace, Type: typ, Id: id})
	if err != nil {
		return err
	}
	return proto.Unmarshal(answer.GetResource().GetSpec().GetProtoSpec(), into)
}

// authority is a CA of the test.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  string
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "CA"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	var der []byte
	a.key, der = sign(t, template, template, nil)
	a.cert, _ = x509.ParseCertificate(der)
	a.pem = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	return a
}

func sign(t *testing.T, template, parent *x509.Certificate, signer *ecdsa.PrivateKey) (*ecdsa.PrivateKey, []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if signer == nil {
		signer = key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	return key, der
}

// client issues a client certificate that ends at a time.
func (a *authority) client(organisation string, end time.Time) tls.Certificate {
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "somebody", Organization: []string{organisation}},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: end,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	key, der := sign(a.t, template, a.cert, a.key)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// connect returns a client of the network API with the certificates.
func (m *machine) connect(certificates ...tls.Certificate) resourcepb.StateClient {
	m.t.Helper()
	config := &tls.Config{
		InsecureSkipVerify: true, // the node's certificate is its own; its fingerprint is checked in a test of its own
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			if len(certificates) == 0 {
				return &tls.Certificate{}, nil
			}
			return &certificates[0], nil
		},
	}
	conn, err := grpc.NewClient("passthrough:///"+m.port, grpc.WithTransportCredentials(credentials.NewTLS(config)))
	if err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() { conn.Close() })
	return resourcepb.NewStateClient(conn)
}
