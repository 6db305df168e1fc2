package main

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	machinepb "github.com/cosi-os/cosi/api/cosi/machine/v1alpha1"
	networkpb "github.com/cosi-os/cosi/api/cosi/network/v1alpha1"
	pluginpb "github.com/cosi-os/cosi/api/cosi/plugin/v1alpha1"
	powerpb "github.com/cosi-os/cosi/api/cosi/power/v1alpha1"
	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	servicepb "github.com/cosi-os/cosi/api/cosi/service/v1alpha1"
	storagepb "github.com/cosi-os/cosi/api/cosi/storage/v1alpha1"
	"github.com/cosi-os/cosi/api/declaration"
	"github.com/cosi-os/cosi/engine/wire"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const (
	mountPoints      = "MountPoints.storage.cosi.dev"
	machineStatuses  = "MachineStatuses.machine.cosi.dev"
	pluginStatuses   = "PluginStatuses.service.cosi.dev"
	certificates     = "Certificates.machine.cosi.dev"
	servingKeys      = "ServingKeys.machine.cosi.dev"
	addressStatuses  = "AddressStatuses.network.cosi.dev"
	userDataSources  = "UserDataSources.machine.cosi.dev"
	shutdownStatuses = "ShutdownStatuses.power.cosi.dev"
	logs             = "Logs.service.cosi.dev"
)

func TestAloneServesOneSocket(t *testing.T) {
	dir, err := os.MkdirTemp("", "cosi")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "x.sock")
	cmd := command(t, "--listen", "unix://"+path)
	start(t, cmd)
	client := resourcepb.NewStateClient(dialUnix(t, path))

	for _, m := range []*resourcepb.Metadata{
		{Namespace: "default", Type: "Anything.example.org", Id: "a", Owner: "me", Phase: "running"},
		{Namespace: "status", Type: pluginStatuses, Id: "p", Owner: "me", Phase: "running"},
	} {
		q := &resourcepb.CreateRequest{Resource: &resourcepb.Resource{Metadata: m, Spec: &resourcepb.Spec{}}, Options: &resourcepb.CreateOptions{Owner: "me"}}
		if _, err := client.Create(t.Context(), q, grpc.WaitForReady(true)); err != nil {
			t.Errorf("create in %s: %v", m.Namespace, err)
		}
	}
	answer, err := client.Get(t.Context(), &resourcepb.GetRequest{Namespace: "default", Type: "Anything.example.org", Id: "a"})
	if err != nil || answer.GetResource().GetMetadata().GetOwner() != "me" {
		t.Errorf("get: %v, %v", answer, err)
	}
	endsCleanly(t, cmd)
}

func TestCommandLinesThatAreRefused(t *testing.T) {
	for _, c := range []struct{ listen, data, descriptors, want string }{
		{"", "", "", "COSI_FDS is not set"},
		{"tcp://127.0.0.1:1", "", "", "only unix sockets"},
		{"", "/tmp", "", "--data goes with --listen"},
		{"unix:///x.sock", "/dev/null/data", "", "--data mkdir /dev/null: not a directory"},
		{"", "", "engine", "not NAME=NUMBER"},
		{"", "", "engine=1", "not NAME=NUMBER"},
		{"", "", "network=300", `no descriptor "engine"`},
	} {
		if err := run(t.Context(), c.listen, c.data, nil, c.descriptors); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("run(%q, %q, %q) = %v; want %q", c.listen, c.data, c.descriptors, err, c.want)
		}
	}
	if err := run(t.Context(), "", "", &machinepb.Limits{Calls: 10}, "engine=3"); err == nil || err.Error() != "--limit goes with --listen" {
		t.Errorf("limits for a node: %v", err)
	}
}

func declarations() []*declaration.Declaration {
	return []*declaration.Declaration{
		{Name: "mount", Inputs: []declaration.Input{{Type: mountPoints, Finalizers: true}}, Outputs: []string{"MountPointStatuses.storage.cosi.dev"}},
		{Name: "network", Outputs: []string{addressStatuses}},
		{Name: "power", Power: true, Outputs: []string{shutdownStatuses}},
		{Name: "userdata", Operator: true, Outputs: []string{userDataSources}},
	}
}

// TestANodeFromBootToPowerOff is one life of a node, with the test as PID 1, plugins and people.
func TestANodeFromBootToPowerOff(t *testing.T) {
	m := boot(t, declarations()...)
	ca := newAuthority(t)
	end := time.Now().Add(30 * time.Minute)
	admin, operator, reader := ca.client("admin", end), ca.client("operator", end), ca.client("reader", end)

	local := resourcepb.NewStateClient(m.dial("runtime"))
	eventually(t, "the runtime answers on its local socket", func() bool {
		return read(t.Context(), local, "status", machineStatuses, "machine", &machinepb.MachineStatus{}) == nil
	})
	if conn, err := net.Dial("tcp", m.port); err == nil {
		conn.Close()
		t.Fatal("the port answers though there is no client CA")
	}

	userdata := m.plug("userdata")
	create(t, userdata.state, "", "config", certificates, "node", &machinepb.Certificates{ClientCas: []string{ca.pem}})
	if !t.Run("it comes up", func(t *testing.T) { comesUp(t, m, userdata, m.connect(admin)) }) {
		return
	}
	t.Run("strangers are refused", func(t *testing.T) { refusesStrangers(t, m, ca) })
	t.Run("roles", func(t *testing.T) { keepsRoles(t, m.connect(admin), m.connect(operator), m.connect(reader)) })
	t.Run("logs", func(t *testing.T) { keepsLogs(t, m, m.connect(reader)) })
	t.Run("revocation", func(t *testing.T) { revokes(t, m, m.connect(admin), reader) })
	t.Run("the fingerprint", func(t *testing.T) { showsFingerprint(t, m, admin) })
	t.Run("power-off", func(t *testing.T) { powersOff(t, m, userdata) })
	endsCleanly(t, m.cmd)
}

func comesUp(t *testing.T, m *machine, userdata *plugin, admin resourcepb.StateClient) {
	status := &machinepb.MachineStatus{}
	eventually(t, "the network API answers", func() bool {
		return read(t.Context(), admin, "status", machineStatuses, "machine", status) == nil
	})
	if status.GetReady() || status.GetReason() != "PluginsStarting" {
		t.Errorf("while plugins are missing: %v", status)
	}
	for _, name := range []string{"mount", "network"} {
		m.plug(name).ready()
	}
	network := resourcepb.NewStateClient(m.dial("network"))
	create(t, network, "network", "status", addressStatuses, "eth0-1", &networkpb.AddressStatus{Address: "10.0.2.15/24", LinkName: "eth0", Source: "dhcp", Ready: true})
	create(t, userdata.state, "userdata", "status", userDataSources, "userdata", &machinepb.UserDataSource{State: "Applied", Complete: true})
	userdata.ready()
	m.plug("power").ready()
	eventually(t, "the machine is ready", func() bool {
		return read(t.Context(), admin, "status", machineStatuses, "machine", status) == nil && status.GetReady()
	})
	if status.GetName() != "n1" || status.GetVersion() != "1.2.3" || status.GetKernel() != "6.12.0" || status.GetFingerprint() == "" {
		t.Errorf("MachineStatus = %v", status)
	}
	eventually(t, "the console says ready", func() bool { return m.shows("\nready") })
	eventually(t, "PID 1 knows the stage", func() bool {
		return m.said(func(d wire.Down) bool { return d.Stage != nil && d.Stage.Name == "ready" })
	})
}

func refusesStrangers(t *testing.T, m *machine, ca *authority) {
	for name, certificates := range map[string][]tls.Certificate{
		"no certificate":    nil,
		"another CA":        {newAuthority(t).client("admin", time.Now().Add(time.Hour))},
		"expired":           {ca.client("admin", time.Now().Add(-time.Minute))},
		"none of the roles": {ca.client("somebody", time.Now().Add(time.Hour))},
	} {
		err := read(t.Context(), m.connect(certificates...), "status", machineStatuses, "machine", &machinepb.MachineStatus{})
		if code := status.Code(err); code != codes.Unavailable {
			t.Errorf("%s: %v; want a refused handshake", name, err)
		}
	}
	eventually(t, "the console names the clock", func() bool { return m.shows("because of the time") })
}

func keepsRoles(t *testing.T, admin, operator, reader resourcepb.StateClient) {
	point := &storagepb.MountPoint{Source: "tmpfs", Target: "/var/x", Fstype: "tmpfs"}
	create(t, operator, "", "config", mountPoints, "x", point)
	_, err := reader.Destroy(t.Context(), &resourcepb.DestroyRequest{Namespace: "config", Type: mountPoints, Id: "x"})
	if status.Code(err) != codes.PermissionDenied {
		t.Errorf("a reader destroys: %v", err)
	}
	for name, c := range map[string]resourcepb.StateClient{"reader": reader, "operator": operator} {
		if err := read(t.Context(), c, "config", certificates, "node", &machinepb.Certificates{}); status.Code(err) != codes.PermissionDenied {
			t.Errorf("%s reads a sensitive kind: %v", name, err)
		}
	}
	if err := read(t.Context(), admin, "config", certificates, "node", &machinepb.Certificates{}); err != nil {
		t.Errorf("admin reads a sensitive kind: %v", err)
	}
}

func keepsLogs(t *testing.T, m *machine, reader resourcepb.StateClient) {
	m.send(wire.Up{Output: &wire.Output{Name: "mount", Stream: "stdout", Sequence: 1, At: time.Now(), Line: "plain \xff"}})
	m.send(wire.Up{Output: &wire.Output{Name: "mount", Stream: "stdout", Sequence: 2, At: time.Now(), Line: `{"level":"info","n":3}`}})
	line := &servicepb.LogLine{}
	eventually(t, "the last line is there", func() bool {
		return read(t.Context(), reader, "logs", logs, "mount", line) == nil && line.GetSequence() == 2
	})
	if line.GetFields().GetFields()["level"].GetStringValue() != "info" || line.GetFields().GetFields()["n"].GetNumberValue() != 3 {
		t.Errorf("fields = %v", line.GetFields())
	}
	id := "mount"
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	watch, err := reader.Watch(ctx, &resourcepb.WatchRequest{Namespace: "logs", Type: logs, Id: &id, Options: &resourcepb.WatchOptions{TailEvents: 2}})
	if err != nil {
		t.Fatal(err)
	}
	for seen := 0; seen < 2; {
		answer, err := watch.Recv()
		if err != nil {
			t.Fatal(err)
		}
		seen += len(answer.GetEvent())
	}
}

func revokes(t *testing.T, m *machine, admin resourcepb.StateClient, reader tls.Certificate) {
	watch, err := m.connect(reader).Watch(t.Context(), &resourcepb.WatchRequest{Namespace: "status", Type: machineStatuses})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := watch.Recv(); err != nil {
		t.Fatal(err)
	}
	got, err := admin.Get(t.Context(), &resourcepb.GetRequest{Namespace: "config", Type: certificates, Id: "node"})
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(reader.Certificate[0])
	r := got.GetResource()
	r.Spec = &resourcepb.Spec{YamlSpec: r.GetSpec().GetYamlSpec() + "revoked: [" + hex.EncodeToString(sum[:]) + "]\n"}
	if _, err := admin.Update(t.Context(), &resourcepb.UpdateRequest{NewResource: r}); err != nil {
		t.Fatal(err)
	}
	if _, err := watch.Recv(); err == nil {
		t.Error("the stream goes on after the revocation")
	}
	if err := read(t.Context(), m.connect(reader), "status", machineStatuses, "machine", &machinepb.MachineStatus{}); err == nil {
		t.Error("a revoked certificate is let in")
	}
	if err := read(t.Context(), admin, "status", machineStatuses, "machine", &machinepb.MachineStatus{}); err != nil {
		t.Errorf("the admin's connection: %v", err)
	}
}

func showsFingerprint(t *testing.T, m *machine, admin tls.Certificate) {
	print := m.fingerprint(admin)
	eventually(t, "the console shows the fingerprint", func() bool { return m.shows(print) })
}

// fingerprint is that of the certificate that the node serves with.
func (m *machine) fingerprint(client tls.Certificate) string {
	m.t.Helper()
	conn, err := tls.Dial("tcp", m.port, &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{client}, NextProtos: []string{"h2"}})
	if err != nil {
		m.t.Fatal(err)
	}
	defer conn.Close()
	leaf := conn.ConnectionState().PeerCertificates[0]
	if conn.ConnectionState().Version != tls.VersionTLS13 || leaf.DNSNames[0] != "n1" {
		m.t.Errorf("version %x, names %v", conn.ConnectionState().Version, leaf.DNSNames)
	}
	sum := sha256.Sum256(leaf.Raw)
	return hex.EncodeToString(sum[:])
}

func powersOff(t *testing.T, m *machine, userdata *plugin) {
	power := resourcepb.NewStateClient(m.dial("power"))
	drained := make(chan bool, 1)
	go func() {
		answer, err := userdata.stream.Recv()
		drained <- err == nil && answer.GetDrain() != nil
		userdata.stream.Send(&pluginpb.SessionRequest{Message: &pluginpb.SessionRequest_Drained{Drained: &pluginpb.Drained{}}})
	}()
	create(t, power, "power", "status", shutdownStatuses, "now", &powerpb.ShutdownStatus{Reason: "Draining", Message: "power key", Action: powerpb.ShutdownRequest_POWER_OFF})
	if !<-drained {
		t.Error("the plugin was not asked to drain")
	}
	eventually(t, "PID 1 is told to power off", func() bool {
		return m.said(func(d wire.Down) bool {
			return d.Shutdown != nil && !d.Shutdown.Reboot && d.Shutdown.Reason == "power key"
		})
	})
}

// TestAPluginThatDiesIsShown follows one plugin through PID 1's frames.
func TestAPluginThatDiesIsShown(t *testing.T) {
	m := boot(t, declarations()...)
	local := resourcepb.NewStateClient(m.dial("runtime"))
	got := &servicepb.PluginStatus{}
	is := func(state string) func() bool {
		return func() bool {
			got.Reset()
			return read(t.Context(), local, "status", pluginStatuses, "mount", got) == nil && got.GetState() == state
		}
	}
	eventually(t, "Stopped before it is started", is("Stopped"))
	m.plug("mount").ready()
	eventually(t, "Ready", is("Ready"))
	m.send(wire.Up{Confined: &wire.Confined{Name: "mount", PID: 100, UID: 901, NoNewPrivs: true, SeccompFilters: 2}})
	eventually(t, "its confinement is shown", func() bool { return is("Ready")() && got.GetConfinement().GetSeccompFilters() == 2 })

	two := m.dial("mount")
	second, err := pluginpb.NewPluginClient(two).Session(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	second.Send(&pluginpb.SessionRequest{Message: &pluginpb.SessionRequest_Register{Register: &pluginpb.Register{Name: "mount"}}})
	if _, err := second.Recv(); status.Code(err) != codes.AlreadyExists {
		t.Errorf("a second session: %v; want ALREADY_EXISTS", err)
	}
	if !is("Ready")() {
		t.Errorf("after the second session: %v", got)
	}
}
