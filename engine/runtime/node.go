package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"time"

	pluginpb "github.com/cosi-os/cosi/api/cosi/plugin/v1alpha1"
	"github.com/cosi-os/cosi/api/declaration"
	"github.com/cosi-os/cosi/api/kinds"
	"github.com/cosi-os/cosi/api/kinds/builtin"
	"github.com/cosi-os/cosi/engine/runtime/access"
	"github.com/cosi-os/cosi/engine/runtime/audit"
	"github.com/cosi-os/cosi/engine/runtime/console"
	"github.com/cosi-os/cosi/engine/runtime/host"
	"github.com/cosi-os/cosi/engine/runtime/limit"
	"github.com/cosi-os/cosi/engine/runtime/modules"
	"github.com/cosi-os/cosi/engine/runtime/network"
	"github.com/cosi-os/cosi/engine/runtime/node"
	"github.com/cosi-os/cosi/engine/runtime/output"
	"github.com/cosi-os/cosi/engine/runtime/peer"
	"github.com/cosi-os/cosi/engine/runtime/plugins"
	"github.com/cosi-os/cosi/engine/runtime/router"
	"github.com/cosi-os/cosi/engine/runtime/schema"
	"github.com/cosi-os/cosi/engine/runtime/server"
	"github.com/cosi-os/cosi/engine/runtime/state"
	"github.com/cosi-os/cosi/engine/runtime/state/log"
	"github.com/cosi-os/cosi/engine/runtime/state/memory"
	"github.com/cosi-os/cosi/engine/runtime/storage"
	"github.com/cosi-os/cosi/engine/wire"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"
)

// runtimeUID is the runtime's user on a machine. Under engine --root it is root, and then plugins have users of their own all the same,
// or it is the user who started the engine, whom everything runs as then.
const runtimeUID = 900

// serveNode serves a node until ctx is done, or until the engine goes away.
func serveNode(ctx context.Context, fds descriptors) error {
	conn, err := fds.conn(wire.FDEngine)
	if err != nil {
		return err
	}
	defer conn.Close()
	n, err := newRuntime(fds, wire.NewConn(conn))
	if err != nil {
		return err
	}
	defer n.storage.Close() // its files are whole at any moment
	group, ctx := errgroup.WithContext(ctx)
	stop := context.AfterFunc(ctx, func() { conn.Close() }) // ends Receive
	defer stop()
	if err := n.start(ctx, group); err != nil {
		conn.Close()
		return fmt.Errorf("%w (%w)", err, group.Wait())
	}
	return group.Wait()
}

// nodeRuntime is the runtime of a node, put together and not yet running.
type nodeRuntime struct {
	fds          descriptors
	hello        wire.Hello
	declarations []*declaration.Declaration
	epoch        []byte
	version      string

	storage *storage.Storage
	garbage int             // that there may be, in percent of what is in use
	first   runtime.Cleanup // is called after the first collection of it

	top    *schema.State // below access
	audit  *audit.Log
	limits *limit.Limiter
	people state.State   // what people see of it
	stored output.Writer // below schema: the runtime's own lines of logs need no check
	output output.Writer
	server *server.Server

	table *plugins.Table
	node  *node.Node
	ready chan struct{} // closed when the node has been ready
	logs  *host.Logs
	host  *host.Host

	modules  *modules.Loader
	resetter *storage.Resetter
}

func newRuntime(fds descriptors, conn *wire.Conn) (*nodeRuntime, error) {
	var first wire.Up
	if err := conn.Receive(&first); err != nil {
		return nil, fmt.Errorf("engine: %w", err)
	}
	if first.Hello == nil {
		return nil, fmt.Errorf("engine: its first frame is no hello")
	}
	if first.Hello.Version != wire.Version {
		return nil, fmt.Errorf("engine: it speaks version %d of the frames, this runtime %d", first.Hello.Version, wire.Version)
	}
	r := &nodeRuntime{fds: fds, hello: *first.Hello, server: server.New(peer.State), limits: limit.New(nil)}
	r.hurry()
	var err error
	if r.declarations, err = readDeclarations(filepath.Join(r.hello.Root, declaration.Dir)); err != nil {
		return nil, err
	}
	if r.version, err = imageVersion(r.hello.Root); err != nil {
		return nil, err
	}
	set := builtin.Set()
	if err := schema.Load(set, r.declarations); err != nil {
		return nil, err
	}
	for _, d := range r.declarations {
		d.Definitions = nil // half a MiB that is in set now
	}
	if err := declaration.CheckClaims(r.declarations, set.Desired); err != nil {
		return nil, err
	}
	if r.storage, err = storage.Open(r.hello.Storage, log.Options{Limits: history, Most: r.limits.ResourcesOfKind, Warn: warn}); err != nil {
		return nil, err
	}
	if err := r.layers(set); err != nil {
		return nil, errors.Join(err, r.storage.Close())
	}
	r.controllers(conn)
	return r, nil
}

// layers puts schema and router in front of the stores.
func (r *nodeRuntime) layers(set *kinds.Set) error {
	store := memory.New(memory.Options{Limits: history, Most: r.limits.ResourcesOfKind})
	r.epoch = store.Epoch()
	durable := map[string]state.State{}
	if kept := r.storage.State(); kept != nil {
		for _, namespace := range storage.Namespaces() {
			durable[namespace] = kept
		}
	}
	routed := router.New(store, durable)
	if values, err := limit.Read(context.Background(), routed); err != nil {
		warn(fmt.Errorf("limits: %w", err)) // then the defaults hold
	} else {
		r.limits.Set(values)
	}
	r.top = schema.New(routed, set, "")
	r.output, r.stored = output.New(r.top), output.New(routed)
	r.top.Check(network.Certificates, network.CheckCertificates)
	r.top.Check(network.ServingKeys, network.CheckServingKey)
	r.top.Check(access.Roles, network.CheckRole(r.top.Definition))
	r.people = r.top
	if why := r.storage.Frozen(); why != "" {
		r.people = storage.Frozen(r.top, why)
	}
	records := audit.Defaults
	records.State, records.Warn = routed, warn
	records.Together = func(namespace string) bool { return len(durable) == 0 || storage.Durable(namespace) }
	var err error
	if r.audit, err = audit.Open(context.Background(), records); err != nil {
		return err
	}
	return r.top.Recover(context.Background())
}

// readDeclarations reads those of dir, with the definitions of their kinds.
func readDeclarations(dir string) ([]*declaration.Declaration, error) {
	all, err := declaration.Load(dir)
	if err != nil {
		return nil, err
	}
	for _, d := range all {
		if err := d.LoadDefinitions(dir); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// controllers makes the parts that write the runtime's own statuses.
func (r *nodeRuntime) controllers(conn *wire.Conn) {
	var names, outputs []string
	for _, d := range r.declarations {
		names, outputs = append(names, d.Name), append(outputs, d.Outputs...)
	}
	r.table = plugins.NewTable(r.output, names...)
	r.node = node.New(node.Config{
		State: r.top, Output: r.output, Version: r.version, Port: r.fds.port(wire.FDNetwork), Outputs: outputs,
		// A frame that cannot be sent means that the engine is gone: Receive ends the runtime.
		Show:   func(lines []string) { _ = r.host.Show(lines) },
		Stage:  r.stage,
		Render: console.Render,
	})
	r.node.Hello(r.hello)
	r.ready = make(chan struct{})
	r.logs = host.NewLogs(r.stored)
	r.modules = modules.New(r.top, r.output, func(order wire.LoadModule) error { return r.host.LoadModule(order) })
	r.host = host.New(conn, r.node, r.table, r.logs, r.modules.Answer)
	r.resetter = &storage.Resetter{
		State: r.top, Output: r.output, Storage: r.storage, Name: r.node.Name, Format: r.host.ResetStorage, Reboot: r.host.Reboot,
	}
}

// start listens for plugins first, because they are waiting; people come last.
func (r *nodeRuntime) start(ctx context.Context, group *errgroup.Group) error {
	if err := r.table.Publish(ctx); err != nil {
		return err
	}
	if err := r.sayStorage(ctx, r.storage.Status()); err != nil {
		return err
	}
	for _, d := range r.declarations {
		listener, err := r.fds.listener(wire.FDPluginPrefix + d.Name)
		if err != nil {
			return err
		}
		group.Go(func() error { return r.servePlugin(ctx, listener, d) })
	}
	r.stage("runtime")
	group.Go(func() error { return r.host.Receive(ctx) })
	group.Go(func() error { return r.logs.Run(ctx) })
	group.Go(func() error { return r.node.Run(ctx) })
	group.Go(func() error { return r.host.Shutdown(ctx, r.top, r.powerful) })
	group.Go(func() error { return r.storage.Run(ctx) })
	group.Go(func() error { return r.audit.Run(ctx) })
	group.Go(func() error { return r.limits.Run(ctx, r.top, r.output) })
	group.Go(func() error { return r.resetter.Run(ctx) })
	group.Go(func() error { return r.modules.Run(ctx) })
	group.Go(func() error { return r.settle(ctx) })
	if _, there := r.fds[wire.FDLocal]; there {
		listener, err := r.fds.listener(wire.FDLocal)
		if err != nil {
			return err
		}
		group.Go(func() error { return r.serveLocal(ctx, listener) })
	}
	if _, there := r.fds[wire.FDNetwork]; there {
		group.Go(func() error { return r.gate().Run(ctx) })
	}
	return nil
}

func (r *nodeRuntime) servePlugin(ctx context.Context, listener net.Listener, d *declaration.Declaration) error {
	uid := d.UID
	if own := os.Getuid(); own != runtimeUID && own != 0 {
		uid = uint32(own)
	}
	err := plugins.Serve(ctx, listener, d, uid, plugins.Config{
		Table: r.table, State: r.top, Options: r.options(),
		Guard: func(seen state.State, name string) state.State {
			return r.limits.State(r.audit.Plugin(seen, name), "plugin/"+name)
		},
		Register:   func(g grpc.ServiceRegistrar, _ state.State) { r.server.Register(g) },
		Registered: &pluginpb.Registered{RuntimeVersion: r.version, Epoch: r.epoch},
	})
	if err != nil && ctx.Err() == nil {
		return fmt.Errorf("plugin %s: %w", d.Name, err)
	}
	return err
}

// serveLocal serves the user who started engine --root, as an admin.
func (r *nodeRuntime) serveLocal(ctx context.Context, listener net.Listener) error {
	admin := r.limits.State(r.audit.People(
		access.New(r.people, access.Person{Role: access.Admin, Definitions: r.top.Definition}), audit.Who{Name: "local", Role: string(access.Admin)},
	), "local")
	g := grpc.NewServer(append(r.options(), grpc.Creds(peer.UID(uint32(os.Getuid()), admin)))...)
	r.server.Register(g)
	return serve(ctx, g, listener)
}

func (r *nodeRuntime) gate() *network.Gate {
	return network.New(network.Config{
		State: r.people, Definitions: r.top.Definition, Audit: r.audit, Limits: r.limits, Output: r.output, Name: r.name, Now: time.Now,
		Listen: func() (net.Listener, error) { return r.fds.listen(wire.FDNetwork) },
		Server: func(o ...grpc.ServerOption) *grpc.Server {
			g := grpc.NewServer(slices.Concat(r.options(), server.Busy(), networkOptions(r.limits.Streams()), o)...)
			r.server.Register(g)
			return g
		},
		Listening: func() { r.stage("api"); r.node.Listening() },
		Refused:   r.node.Refused,
	})
}

// options are those of every server.
func (r *nodeRuntime) options() []grpc.ServerOption {
	return append(server.Options(), grpc.MaxRecvMsgSize(int(r.limits.Values().GetMessageBytes())))
}

// networkOptions find clients that have gone without a word, let those that watch for long keep NAT entries alive, and bound the streams of a
// connection, of which some may never come to ask for anything.
func networkOptions(streams uint32) []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 2 * time.Minute, Timeout: 20 * time.Second}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 20 * time.Second, PermitWithoutStream: true}),
		grpc.MaxConcurrentStreams(streams),
		grpc.ConnectionTimeout(20 * time.Second),
	}
}

// name is what the node calls itself while nobody has given it a certificate.
func (r *nodeRuntime) name() string {
	if r.hello.Hostname == "" {
		return "cosi"
	}
	return r.hello.Hostname
}

// powerful reports whether the plugin may take the node down.
func (r *nodeRuntime) powerful(owner string) bool {
	return slices.ContainsFunc(r.declarations, func(d *declaration.Declaration) bool { return d.Name == owner && d.Power })
}

// stage notes that the boot has come so far, here and with PID 1.
func (r *nodeRuntime) stage(name string) {
	var now unix.Timespec
	if unix.ClockGettime(unix.CLOCK_BOOTTIME, &now) != nil {
		return
	}
	s := wire.Stage{Name: name, Milliseconds: uint64(now.Nano() / int64(time.Millisecond))}
	r.node.Stage(s)
	_ = r.host.Stage(s) // See Show.
	if name == "ready" {
		close(r.ready)
	}
}

// imageVersion reads the version of the image that the node was started from; off a machine there may be none.
func imageVersion(root string) (string, error) {
	path := filepath.Join(root, "/usr/lib/cosi/image.json")
	data, err := os.ReadFile(path)
	if os.IsNotExist(err) {
		return "development", nil
	}
	if err != nil {
		return "", err
	}
	var image struct {
		Version string `json:"version"`
	}
	if err := json.Unmarshal(data, &image); err != nil {
		return "", fmt.Errorf("%s: %w", path, err)
	}
	return image.Version, nil
}

// history keeps the last lines of each process however busy another is.
func history(k state.Kind) memory.Limits {
	if k == host.LogKind {
		return memory.Limits{Events: 2048, Bytes: 2 << 20, EventsOfID: 500}
	}
	if k == audit.Records {
		return memory.Limits{Events: 512, Bytes: 256 << 10} // what is kept can be listed
	}
	return memory.DefaultLimits
}
