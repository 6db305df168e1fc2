package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	pluginpb "github.com/cosi-os/cosi/api/cosi/plugin/v1alpha1"
	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	servicepb "github.com/cosi-os/cosi/api/cosi/service/v1alpha1"
	"github.com/cosi-os/cosi/api/declaration"
	"github.com/cosi-os/cosi/api/kinds"
	"github.com/cosi-os/cosi/api/kinds/builtin"
	"github.com/cosi-os/cosi/engine/runtime/output"
	"github.com/cosi-os/cosi/engine/runtime/plugins"
	"github.com/cosi-os/cosi/engine/runtime/schema"
	"github.com/cosi-os/cosi/engine/runtime/server"
	"github.com/cosi-os/cosi/engine/runtime/state"
	"github.com/cosi-os/cosi/engine/runtime/state/memory"
	"github.com/cosi-os/cosi/engine/wire"
)

// host is the runtime of a node, for one plugin, and the plugin's process.
type host struct {
	declaration *declaration.Declaration
	program     string
	said        io.Writer
	dir         string
	kinds       *kinds.Set
	store       *memory.Store
	top         *schema.State
	table       *plugins.Table

	end     context.CancelFunc
	serving sync.WaitGroup

	plugin *exec.Cmd
	ended  chan error

	mu      sync.Mutex // guards refused
	refused []string
}

func newHost(program string, d *declaration.Declaration, said io.Writer) (*host, error) {
	program, err := filepath.Abs(program)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "cosi") // a socket's name is short
	if err != nil {
		return nil, err
	}
	set := builtin.Set()
	if err := schema.Load(set, []*declaration.Declaration{d}); err != nil {
		return nil, err
	}
	h := &host{declaration: d, program: program, said: said, dir: dir, kinds: set, store: memory.New(memory.Options{})}
	h.top = schema.New(h.store, set, "")
	return h, h.start()
}

func (h *host) socket() string { return filepath.Join(h.dir, "p.sock") }

// start serves the plugin; stop cuts all connections, as a runtime that dies does.
func (h *host) start() error {
	listener, err := net.Listen("unix", h.socket())
	if err != nil {
		return err
	}
	h.table = plugins.NewTable(output.New(h.top), h.declaration.Name)
	ctx, cancel := context.WithCancel(context.Background())
	h.end = cancel
	config := plugins.Config{
		Table: h.table, State: h.top, Options: server.Options(),
		Guard: func(seen state.State, _ string) state.State { return &witness{seen, h} },
		Register: func(g grpc.ServiceRegistrar, s state.State) {
			server.New(func(context.Context) (state.State, error) { return s, nil }).Register(g)
		},
		Registered: &pluginpb.Registered{RuntimeVersion: "conformance", Epoch: h.store.Epoch()},
	}
	h.serving.Go(func() { _ = plugins.Serve(ctx, listener, h.declaration, uint32(os.Getuid()), config) })
	return nil
}

func (h *host) stop() {
	h.end()
	h.serving.Wait()
}

func (h *host) close() {
	h.killPlugin()
	h.stop()
	os.RemoveAll(h.dir)
}

func (h *host) startPlugin() error {
	cmd := exec.Command(h.program)
	cmd.Env = append(os.Environ(), wire.EnvEndpoint+"=unix://"+h.socket(), wire.EnvName+"="+h.declaration.Name)
	cmd.Stdout, cmd.Stderr = h.said, h.said
	if err := cmd.Start(); err != nil {
		return err
	}
	h.plugin, h.ended = cmd, make(chan error, 1)
	go func(ended chan<- error) { ended <- cmd.Wait() }(h.ended)
	return nil
}

func (h *host) killPlugin() {
	if h.plugin != nil {
		_ = h.plugin.Process.Signal(syscall.SIGKILL) // it may have ended by itself
		<-h.ended
		h.plugin = nil
	}
}

// waitPlugin returns the exit code of a plugin that ends by itself.
func (h *host) waitPlugin(patience time.Duration) (int, error) {
	select {
	case <-h.ended:
		code := h.plugin.ProcessState.ExitCode()
		h.plugin = nil
		return code, nil
	case <-time.After(patience):
		h.killPlugin()
		return 0, fmt.Errorf("its process has not ended after %v", patience)
	}
}

// ready returns what the plugin's status says instead.
func (h *host) ready() error {
	select {
	case err := <-h.ended:
		h.ended <- err
		return fmt.Errorf("its process has ended: %v", h.plugin.ProcessState)
	default:
	}
	s := &servicepb.PluginStatus{}
	r, err := h.store.Get(context.Background(), state.Pointer{
		Kind: state.Kind{Namespace: "status", Type: "PluginStatuses.service.cosi.dev"}, ID: h.declaration.Name,
	})
	if err != nil {
		return errors.New("it has not registered")
	}
	if err := proto.Unmarshal(r.GetSpec().GetProtoSpec(), s); err != nil {
		return err
	}
	if !s.GetReady() {
		return fmt.Errorf("%s: %s", s.GetState(), s.GetMessage())
	}
	return nil
}

// apply creates a resource, or gives it a new version with the same content.
func (h *host) apply(ctx context.Context, r *resourcepb.Resource) error {
	for {
		_, err := h.top.Create(ctx, r, state.WriteOptions{})
		if !errors.Is(err, state.ErrExists) {
			return err
		}
		old, err := h.store.Get(ctx, state.PointerTo(r))
		if err != nil {
			return err
		}
		fresh := proto.CloneOf(old)
		fresh.Spec = r.GetSpec()
		if _, err = h.top.Update(ctx, fresh, state.WriteOptions{}); !errors.Is(err, state.ErrConflict) {
			return err
		}
	}
}

// answered fails while an input has no status of its version, as far as the plugin is the one to write it.
func (h *host) answered(ctx context.Context, inputs []*resourcepb.Resource) error {
	for _, input := range inputs {
		observed := h.kinds.ByType(input.GetMetadata().GetType()).Definition.GetObservedType()
		if !h.declaration.Writes(observed) {
			continue
		}
		now, err := h.store.Get(ctx, state.PointerTo(input))
		if err != nil {
			return err
		}
		k := h.kinds.ByType(observed)
		r, err := h.store.Get(ctx, state.Pointer{Kind: state.Kind{Namespace: k.Namespace(), Type: k.Type()}, ID: input.GetMetadata().GetId()})
		if err != nil {
			return fmt.Errorf("%s has no status", state.PointerTo(input))
		}
		version, err := observedVersion(k, r)
		if err != nil {
			return err
		}
		if version != now.GetMetadata().GetVersion() {
			return fmt.Errorf("the status of %s is of version %q, not %s", state.PointerTo(input), version, now.GetMetadata().GetVersion())
		}
	}
	return nil
}

func observedVersion(k *kinds.Kind, r *resourcepb.Resource) (string, error) {
	m, err := k.Unmarshal(r.GetSpec().GetProtoSpec())
	if err != nil {
		return "", err
	}
	field := versionField(m)
	if field == nil {
		return "", fmt.Errorf("%s has no field observed_version", k.Type())
	}
	return m.Get(field).String(), nil
}

func versionField(m protoreflect.Message) protoreflect.FieldDescriptor {
	return m.Descriptor().Fields().ByName("observed_version")
}

// outputs returns what the plugin has written, by name: with versions, or the contents without the versions that they answer to.
func (h *host) outputs(ctx context.Context, versions bool) (map[string]string, error) {
	all := map[string]string{}
	for _, typ := range h.declaration.Outputs {
		k := h.kinds.ByType(typ)
		if k == nil {
			return nil, fmt.Errorf("the declaration has the output %s, which is no kind", typ)
		}
		list, err := h.store.List(ctx, state.Kind{Namespace: k.Namespace(), Type: typ}, state.Query{})
		if err != nil {
			return nil, err
		}
		for _, r := range list {
			m, err := k.Unmarshal(r.GetSpec().GetProtoSpec())
			if err != nil {
				return nil, err
			}
			text := "version " + r.GetMetadata().GetVersion()
			if !versions {
				if field := versionField(m); field != nil {
					m.Clear(field)
				}
				if text, err = kinds.EncodeMessage(m); err != nil {
					return nil, err
				}
			}
			all[k.Singular()+"/"+r.GetMetadata().GetId()] = text
		}
	}
	return all, nil
}

// same fails when the outputs are others than before.
func (h *host) same(ctx context.Context, before map[string]string, versions bool) error {
	now, err := h.outputs(ctx, versions)
	if err != nil {
		return err
	}
	var wrong []string
	for name, was := range before {
		switch is, there := now[name]; {
		case !there:
			wrong = append(wrong, name+" is gone")
		case is != was:
			wrong = append(wrong, fmt.Sprintf("%s was %s and is %s", name, strings.TrimSpace(was), strings.TrimSpace(is)))
		}
	}
	for name := range now {
		if _, there := before[name]; !there {
			wrong = append(wrong, name+" is new")
		}
	}
	slices.Sort(wrong)
	if len(wrong) > 0 {
		return errors.New(strings.Join(wrong, "\n"))
	}
	return nil
}

// gone destroys an input that nobody holds any more, and fails while its status is there.
func (h *host) gone(ctx context.Context, input *resourcepb.Resource) error {
	err := h.top.Destroy(ctx, state.PointerTo(input), state.WriteOptions{})
	if err != nil && !errors.Is(err, state.ErrNotFound) {
		return err
	}
	observed := h.kinds.ByType(input.GetMetadata().GetType()).Definition.GetObservedType()
	if k := h.kinds.ByType(observed); k != nil && h.declaration.Writes(observed) {
		p := state.Pointer{Kind: state.Kind{Namespace: k.Namespace(), Type: observed}, ID: input.GetMetadata().GetId()}
		if _, err := h.store.Get(ctx, p); err == nil {
			return fmt.Errorf("%s is still there", p)
		}
	}
	return nil
}

func (h *host) refusals() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.refused) == 0 {
		return nil
	}
	return errors.New(strings.Join(h.refused, "\n"))
}

// witness notes each call that is refused.
type witness struct {
	state.State
	host *host
}

func (w *witness) note(err error) error {
	if errors.Is(err, state.ErrDenied) || errors.Is(err, state.ErrOwner) {
		w.host.mu.Lock()
		defer w.host.mu.Unlock()
		if text := err.Error(); !slices.Contains(w.host.refused, text) && len(w.host.refused) < 20 {
			w.host.refused = append(w.host.refused, text)
		}
	}
	return err
}

func (w *witness) Get(ctx context.Context, p state.Pointer) (*resourcepb.Resource, error) {
	r, err := w.State.Get(ctx, p)
	return r, w.note(err)
}

func (w *witness) List(ctx context.Context, k state.Kind, q state.Query) ([]*resourcepb.Resource, error) {
	all, err := w.State.List(ctx, k, q)
	return all, w.note(err)
}

func (w *witness) Create(ctx context.Context, r *resourcepb.Resource, o state.WriteOptions) (*resourcepb.Resource, error) {
	created, err := w.State.Create(ctx, r, o)
	return created, w.note(err)
}

func (w *witness) Update(ctx context.Context, r *resourcepb.Resource, o state.WriteOptions) (*resourcepb.Resource, error) {
	updated, err := w.State.Update(ctx, r, o)
	return updated, w.note(err)
}

func (w *witness) Destroy(ctx context.Context, p state.Pointer, o state.WriteOptions) error {
	return w.note(w.State.Destroy(ctx, p, o))
}

func (w *witness) Teardown(ctx context.Context, p state.Pointer, o state.WriteOptions) (*resourcepb.Resource, error) {
	r, err := w.State.Teardown(ctx, p, o)
	return r, w.note(err)
}

func (w *witness) Watch(ctx context.Context, q state.WatchRequest) (state.Watch, error) {
	watch, err := w.State.Watch(ctx, q)
	return watch, w.note(err)
}
