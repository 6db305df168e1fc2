package node

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/protobuf/proto"

	machinepb "github.com/cosi-os/cosi/api/cosi/machine/v1alpha1"
	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	"github.com/cosi-os/cosi/api/document"
	"github.com/cosi-os/cosi/api/kinds/builtin"
	"github.com/cosi-os/cosi/tools/qemu"
)

// still returns a VM that stands still: what Node needs of one, at no cost.
func still(t *testing.T) *qemu.VM {
	t.Helper()
	h, err := qemu.Find(t.Context(), qemu.AMD64)
	if errors.Is(err, qemu.ErrNoQEMU) && os.Getenv("CI") == "" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	vm, err := qemu.Start(t.Context(), h, qemu.Machine{Memory: 64, Extra: []string{"-S"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(vm.Kill)
	return vm
}

func identity(t *testing.T) *Identity {
	t.Helper()
	id, err := LoadIdentity(t.TempDir(), "cosi", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// machineServer is the part of a node that WaitReady talks to: a machine that becomes ready once it
// is watched.
type machineServer struct {
	resourcepb.UnimplementedStateServer
	ready atomic.Bool
}

func (s *machineServer) resource() *resourcepb.Resource {
	spec, err := proto.Marshal(&machinepb.MachineStatus{Ready: s.ready.Load(), Name: "cosi", Reason: "PluginsStarting", Message: "mount is not there yet"})
	if err != nil {
		panic(err)
	}
	return &resourcepb.Resource{Metadata: &resourcepb.Metadata{Id: "machine"}, Spec: &resourcepb.Spec{ProtoSpec: spec}}
}

func (s *machineServer) Get(context.Context, *resourcepb.GetRequest) (*resourcepb.GetResponse, error) {
	return &resourcepb.GetResponse{Resource: s.resource()}, nil
}

func (s *machineServer) Watch(_ *resourcepb.WatchRequest, stream grpc.ServerStreamingServer[resourcepb.WatchResponse]) error {
	for range 2 {
		if err := stream.Send(&resourcepb.WatchResponse{Event: []*resourcepb.Event{{Resource: s.resource()}}}); err != nil {
			return err
		}
		s.ready.Store(true)
	}
	<-stream.Context().Done()
	return nil
}

// serve runs s as a node with id's certificate would.
func serve(t *testing.T, id *Identity, s resourcepb.StateServer) (endpoint string) {
	t.Helper()
	pair, err := tls.X509KeyPair(id.Serving.CertPEM, id.Serving.KeyPEM)
	if err != nil {
		t.Fatal(err)
	}
	clients := x509.NewCertPool()
	clients.AddCert(id.CA.Certificate)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(grpc.Creds(credentials.NewTLS(&tls.Config{
		Certificates: []tls.Certificate{pair}, ClientCAs: clients, ClientAuth: tls.RequireAndVerifyClientCert, MinVersion: tls.VersionTLS13,
	})))
	resourcepb.RegisterStateServer(server, s)
	done := make(chan error)
	go func() { done <- server.Serve(l) }()
	t.Cleanup(func() { server.Stop(); <-done })
	return l.Addr().String()
}

func TestWaitReadyFollowsTheMachine(t *testing.T) {
	id := identity(t)
	n := &Node{VM: still(t), Context: id.Context(serve(t, id, &machineServer{})), attempt: attempt}
	if err := n.WaitTLS(t.Context()); err != nil {
		t.Fatal(err)
	}
	c, err := n.Dial()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	status, err := n.WaitReady(t.Context(), c)
	if err != nil || !status.GetReady() {
		t.Errorf("WaitReady = %v, %v", status, err)
	}
}

// never is a machine that does not become ready.
type never struct{ machineServer }

func (s *never) Watch(_ *resourcepb.WatchRequest, stream grpc.ServerStreamingServer[resourcepb.WatchResponse]) error {
	<-stream.Context().Done()
	return nil
}

func TestWaitReadySaysWhatIsMissing(t *testing.T) {
	id := identity(t)
	n := &Node{VM: still(t), Context: id.Context(serve(t, id, &never{}))}
	c, err := n.Dial()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	_, err = n.WaitReady(ctx, c)
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "PluginsStarting: mount is not there yet") {
		t.Errorf("WaitReady = %v", err)
	}
}

func TestWaitTLSEndsWithTheVM(t *testing.T) {
	vm := still(t)
	n := &Node{VM: vm, Context: identity(t).Context("127.0.0.1:1"), attempt: attempt}
	time.AfterFunc(50*time.Millisecond, vm.Kill)
	if err := n.WaitTLS(t.Context()); !errors.Is(err, qemu.ErrEnded) {
		t.Errorf("WaitTLS = %v; want %v", err, qemu.ErrEnded)
	}
}

func TestUserDataIsADocumentOfTheNode(t *testing.T) {
	data, err := identity(t).UserData()
	if err != nil {
		t.Fatal(err)
	}
	documents, problems := document.Parse("user-data.yaml", data)
	if len(documents) != 1 || len(problems) != 0 {
		t.Fatalf("%d documents, %v in:\n%s", len(documents), problems, data)
	}
	r, problems := documents[0].Resolve(builtin.Set())
	if len(problems) != 0 || r.GetMetadata().GetType() != "Certificates.machine.cosi.dev" || r.GetMetadata().GetId() != "node" {
		t.Errorf("Resolve = %v, %v", r.GetMetadata(), problems)
	}
}

func TestExpiredKeysAreSaid(t *testing.T) {
	dir := t.TempDir()
	if _, err := LoadIdentity(dir, "cosi", time.Now().AddDate(-3, 0, 0)); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadIdentity(dir, "cosi", time.Now()); err == nil || !strings.Contains(err.Error(), "has expired: remove "+dir) {
		t.Errorf("LoadIdentity = %v", err)
	}
}

func TestMachineOfAnImage(t *testing.T) {
	dir := t.TempDir()
	for name, data := range map[string]string{"c.raw": "", "c.iso": "", "c.ipxe": "", "c.tar": "", "c.manifest.json": `{"command_line": "rootfstype=ramfs"}`} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	m, err := machine(filepath.Join(dir, "c.raw"), UEFI, false)
	if err != nil || len(m.Disks) != 1 || !m.Disks[0].Snapshot || m.Kernel != "" {
		t.Errorf("machine(c.raw, UEFI) = %+v, %v", m, err)
	}
	m, err = machine(filepath.Join(dir, "c.iso"), Kernel, false)
	if err != nil || m.CDROM == "" || m.Kernel != filepath.Join(dir, "c.vmlinuz") || m.CommandLine != "rootfstype=ramfs" {
		t.Errorf("machine(c.iso, Kernel) = %+v, %v", m, err)
	}
	m, err = machine(filepath.Join(dir, "c.iso"), BIOS, true)
	if err != nil || !m.BIOS || !m.USB || len(m.Disks) != 1 || !m.Disks[0].Stick || m.CDROM != "" {
		t.Errorf("machine(c.iso, BIOS, stick) = %+v, %v", m, err)
	}
	m, err = machine(filepath.Join(dir, "c.ipxe"), BIOS, false)
	if err != nil || m.NetworkBoot != filepath.Join(dir, "c.ipxe") {
		t.Errorf("machine(c.ipxe, BIOS) = %+v, %v", m, err)
	}
	for _, bad := range []string{"c.tar", "none.raw"} {
		if _, err := machine(filepath.Join(dir, bad), UEFI, false); err == nil {
			t.Errorf("machine(%s) succeeded", bad)
		}
	}
}
