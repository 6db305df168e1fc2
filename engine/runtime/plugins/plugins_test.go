package plugins

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	pluginpb "github.com/cosi-os/cosi/api/cosi/plugin/v1alpha1"
	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	servicepb "github.com/cosi-os/cosi/api/cosi/service/v1alpha1"
	"github.com/cosi-os/cosi/api/declaration"
	"github.com/cosi-os/cosi/engine/runtime/output"
	"github.com/cosi-os/cosi/engine/runtime/peer"
	"github.com/cosi-os/cosi/engine/runtime/server"
	"github.com/cosi-os/cosi/engine/runtime/state"
	"github.com/cosi-os/cosi/engine/runtime/state/memory"
	"github.com/cosi-os/cosi/engine/wire"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

const (
	mounts   = "MountPoints.storage.cosi.dev"
	statuses = "MountPointStatuses.storage.cosi.dev"
)

// world serves plugins on sockets of their own, over a real store.
type world struct {
	t     *testing.T
	dir   string
	store *memory.Store
	table *Table
}

func newWorld(t *testing.T, uid uint32, names ...string) *world {
	t.Helper()
	dir, err := os.MkdirTemp("", "cosi") // t.TempDir is too long a name for a socket
	if err != nil {
		t.Fatal(err)
	}
	store := memory.New(memory.Options{})
	w := &world{t: t, dir: dir, store: store, table: NewTable(output.New(store), names...)}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, len(names))
	for _, name := range names {
		listener, err := net.Listen("unix", w.path(name))
		if err != nil {
			t.Fatal(err)
		}
		d := &declaration.Declaration{Name: name, Inputs: []declaration.Input{{Type: mounts}}, Outputs: []string{statuses}}
		c := Config{
			Table: w.table, State: store, Options: server.Options(), Registered: &pluginpb.Registered{RuntimeVersion: "1", Epoch: store.Epoch()},
			Register: func(g grpc.ServiceRegistrar, _ state.State) { server.New(peer.State).Register(g) },
		}
		go func() { ended <- Serve(ctx, listener, d, uid, c) }()
	}
	t.Cleanup(func() {
		cancel()
		for range names {
			if err := <-ended; !errors.Is(err, context.Canceled) {
				t.Errorf("Serve: %v", err)
			}
		}
		os.RemoveAll(dir)
	})
	return w
}

func (w *world) path(name string) string { return filepath.Join(w.dir, name) }

func (w *world) dial(name string) *grpc.ClientConn {
	w.t.Helper()
	conn, err := grpc.NewClient("unix://"+w.path(name), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { conn.Close() })
	return conn
}

// session opens a session with first as the first message, and returns the first answer.
func (w *world) session(name string, first *pluginpb.SessionRequest) (grpc.BidiStreamingClient[pluginpb.SessionRequest, pluginpb.SessionResponse], *pluginpb.SessionResponse, error) {
	w.t.Helper()
	stream, err := pluginpb.NewPluginClient(w.dial(name)).Session(w.t.Context())
	if err != nil {
		return nil, nil, err
	}
	stream.Send(first)
	answer, err := stream.Recv()
	return stream, answer, err
}

func register(name string, controllers ...*pluginpb.Controller) *pluginpb.SessionRequest {
	return &pluginpb.SessionRequest{Message: &pluginpb.SessionRequest_Register{Register: &pluginpb.Register{Name: name, Version: "1", Controllers: controllers}}}
}

var (
	ready   = &pluginpb.SessionRequest{Message: &pluginpb.SessionRequest_Ready{Ready: &pluginpb.Ready{}}}
	drained = &pluginpb.SessionRequest{Message: &pluginpb.SessionRequest_Drained{Drained: &pluginpb.Drained{}}}
)

func (w *world) status(name string) *servicepb.PluginStatus {
	s := &servicepb.PluginStatus{}
	if r, err := w.store.Get(context.Background(), state.Pointer{Kind: Statuses, ID: name}); err == nil {
		proto.Unmarshal(r.GetSpec().GetProtoSpec(), s)
	}
	return s
}

func (w *world) eventually(name, want string) {
	w.t.Helper()
	for end := time.Now().Add(30 * time.Second); w.status(name).GetState() != want; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			w.t.Fatalf("%s is %v; want %s", name, w.status(name), want)
		}
	}
}

func TestStatesOfAPlugin(t *testing.T) {
	w, ctx := newWorld(t, uint32(os.Getuid()), "mount"), context.Background()
	if err := w.table.Publish(ctx); err != nil {
		t.Fatal(err)
	}
	w.eventually("mount", Stopped)
	now := time.Now()
	w.table.Started(ctx, &wire.Started{Name: "mount", PID: 7, At: now})
	w.eventually("mount", Starting)

	stream, answer, err := w.session("mount", register("mount", &pluginpb.Controller{Name: "c", Outputs: []*pluginpb.Output{{Type: statuses}}}))
	if err != nil || string(answer.GetRegistered().GetEpoch()) != string(w.store.Epoch()) {
		t.Fatalf("%v, %v", answer, err)
	}
	w.eventually("mount", Registered)
	stream.Send(ready)
	w.eventually("mount", Ready)
	if s := w.status("mount"); !s.GetReady() || s.GetPid() != 7 || s.GetVersion() != "1" || s.GetControllers()[0].GetOutputs()[0] != statuses {
		t.Errorf("Ready: %v", s)
	}
	stream.CloseSend()
	w.eventually("mount", Starting)

	w.table.Exited(ctx, &wire.Exited{Name: "mount", PID: 7, How: "exit 1", NextStart: now.Add(time.Second)})
	w.eventually("mount", BackOff)
	if s := w.status("mount"); s.GetLastExit() != "exit 1" || s.GetNextStart() == nil || s.GetPid() != 0 {
		t.Errorf("BackOff: %v", s)
	}
	w.table.Started(ctx, &wire.Started{Name: "mount", PID: 8, At: now, Restarts: 1})
	w.eventually("mount", Starting)
	if s := w.status("mount"); s.GetRestarts() != 1 || s.GetLastExit() != "exit 1" {
		t.Errorf("restarted: %v", s)
	}
	w.table.Exited(ctx, &wire.Exited{Name: "mount", PID: 8, How: "no such file"})
	w.eventually("mount", Stopped)
	if err := w.table.Started(ctx, &wire.Started{Name: "unheard of"}); err != nil || w.status("unheard of").GetState() != "" {
		t.Errorf("a process that is no plugin: %v", err)
	}
}

func TestRegistrationsThatAreRefused(t *testing.T) {
	w := newWorld(t, uint32(os.Getuid()), "mount")
	for name, c := range map[string]struct {
		first *pluginpb.SessionRequest
		want  codes.Code
	}{
		"another's name":  {register("network"), codes.PermissionDenied},
		"no register":     {ready, codes.InvalidArgument},
		"one output more": {register("mount", &pluginpb.Controller{Outputs: []*pluginpb.Output{{Type: mounts}}}), codes.PermissionDenied},
		"one input more":  {register("mount", &pluginpb.Controller{Inputs: []*pluginpb.Input{{Type: "Secrets.example.org"}}}), codes.PermissionDenied},
		"finalizers":      {register("mount", &pluginpb.Controller{Inputs: []*pluginpb.Input{{Type: mounts, Finalizers: true}}}), codes.PermissionDenied},
	} {
		if _, _, err := w.session("mount", c.first); status.Code(err) != c.want {
			t.Errorf("%s: %v; want %v", name, err, c.want)
		}
	}
	stream, _, err := w.session("mount", register("mount"))
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := w.session("mount", register("mount")); status.Code(err) != codes.AlreadyExists {
		t.Errorf("a second session: %v", err)
	}
	stream.Send(register("mount"))
	if _, err := stream.Recv(); status.Code(err) != codes.InvalidArgument {
		t.Errorf("a second registration: %v", err)
	}
}

func TestARegistrationNarrowsTheState(t *testing.T) {
	w := newWorld(t, uint32(os.Getuid()), "mount")
	conn := w.dial("mount")
	client := resourcepb.NewStateClient(conn)
	list := func() error {
		stream, err := client.List(t.Context(), &resourcepb.ListRequest{Namespace: "config", Type: mounts})
		if err == nil {
			_, err = stream.Recv()
		}
		if err != nil && status.Code(err) == codes.Unknown { // io.EOF: the list is empty
			err = nil
		}
		return err
	}
	if err := list(); status.Code(err) == codes.PermissionDenied {
		t.Fatalf("before the registration: %v", err)
	}
	if _, _, err := w.session("mount", register("mount", &pluginpb.Controller{Outputs: []*pluginpb.Output{{Type: statuses}}})); err != nil {
		t.Fatal(err)
	}
	if err := list(); status.Code(err) != codes.PermissionDenied {
		t.Errorf("an input that was not registered: %v", err)
	}
}

func TestOnlyThePluginsOwnUserGetsIn(t *testing.T) {
	w := newWorld(t, uint32(os.Getuid())+1, "mount")
	if _, _, err := w.session("mount", register("mount")); status.Code(err) != codes.Unavailable {
		t.Errorf("%v; want the connection to be refused", err)
	}
}

func TestDrainGoesBackwardsAndIsBounded(t *testing.T) {
	names := []string{"a", "b", "c"}
	w, ctx := newWorld(t, uint32(os.Getuid()), names...), context.Background()
	order := make(chan string, len(names))
	for _, name := range []string{"b", "a", "c"} {
		w.table.Started(ctx, &wire.Started{Name: name, PID: 1, At: time.Now()})
		stream, _, err := w.session(name, register(name))
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			answer, err := stream.Recv()
			if err == nil && strings.Contains(answer.GetDrain().GetReason(), "power") {
				order <- name
				if name != "a" { // a hangs
					stream.Send(drained)
				}
			}
		}()
	}
	begun := time.Now()
	var stopped []string
	late := w.table.Drain(ctx, "power key", begun.Add(2*time.Second), func(name string) { stopped = append(stopped, name) })
	if !slices.Equal(stopped, []string{"c", "a", "b"}) {
		t.Errorf("stopped %v; want c a b", stopped)
	}
	if took := time.Since(begun); took > 10*time.Second {
		t.Errorf("it took %v", took)
	}
	if !slices.Equal(late, []string{"a"}) {
		t.Errorf("late: %v; want a", late)
	}
	if got := []string{<-order, <-order, <-order}; !slices.Equal(got, []string{"c", "a", "b"}) {
		t.Errorf("order %v; want c a b", got)
	}
	if s := w.status("a"); s.GetState() != Draining || s.GetMessage() != "power key" {
		t.Errorf("a: %v", s)
	}
}
