package plugins

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	pluginpb "github.com/cosi-os/cosi/api/cosi/plugin/v1alpha1"
	servicepb "github.com/cosi-os/cosi/api/cosi/service/v1alpha1"
	"github.com/cosi-os/cosi/engine/runtime/output"
	"github.com/cosi-os/cosi/engine/runtime/state"
	"github.com/cosi-os/cosi/engine/wire"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// Statuses is the kind that Table writes.
var Statuses = state.Kind{Namespace: "status", Type: "PluginStatuses.service.cosi.dev"}

// States of a plugin.
const (
	Stopped    = "Stopped"
	Starting   = "Starting"
	Registered = "Registered"
	Ready      = "Ready"
	Draining   = "Draining"
	BackOff    = "BackOff"
)

// Table knows each plugin's process, from PID 1's frames, and its session, and writes PluginStatuses from both.
//
//	          started             Register               Ready
//	Stopped ──────────▶ Starting ──────────▶ Registered ───────▶ Ready
//	   ▲                 ▲    ▲                  │                 │
//	   │ exited,         │    └── session ends ──┴──── Drain ──────┤
//	   │ not restarted   │ started                                 ▼
//	   └───── any     BackOff ◀─── exited ─── any               Draining
type Table struct {
	output output.Writer

	mu      sync.Mutex // guards the fields below and the order of writes
	entries map[string]*entry
	starts  uint64 // counts starts, for the order
}

type entry struct {
	name     string
	order    uint64 // of the last start
	started  *wire.Started
	exited   *wire.Exited
	confined *wire.Confined
	lastExit string
	session  *session
}

// NewTable returns a Table with a Stopped plugin for each name.
func NewTable(out output.Writer, names ...string) *Table {
	t := &Table{output: out, entries: map[string]*entry{}}
	for _, name := range names {
		t.entries[name] = &entry{name: name}
	}
	return t
}

// Publish writes the status of every plugin, so that those that never start are seen too.
func (t *Table) Publish(ctx context.Context) error {
	for _, name := range t.names() {
		if err := t.change(ctx, name, func(*entry) {}); err != nil {
			return err
		}
	}
	return nil
}

func (t *Table) names() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	var names []string
	for name := range t.entries {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// Started, Confined and Exited take PID 1's frames. One about a process that is no plugin changes nothing.
func (t *Table) Started(ctx context.Context, f *wire.Started) error {
	return t.change(ctx, f.Name, func(e *entry) {
		t.starts++
		e.order, e.started, e.exited, e.confined = t.starts, f, nil, nil
	})
}

func (t *Table) Confined(ctx context.Context, f *wire.Confined) error {
	return t.change(ctx, f.Name, func(e *entry) { e.confined = f })
}

func (t *Table) Exited(ctx context.Context, f *wire.Exited) error {
	return t.change(ctx, f.Name, func(e *entry) { e.exited, e.lastExit = f, f.How })
}

// change applies f to a plugin's entry and writes its status.
func (t *Table) change(ctx context.Context, name string, f func(*entry)) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	e, ok := t.entries[name]
	if !ok {
		return nil
	}
	f(e)
	return t.output.Put(ctx, state.Pointer{Kind: Statuses, ID: name}, e.status())
}

// open makes s the plugin's session. It returns false while another one is open.
func (t *Table) open(ctx context.Context, name string, s *session) (bool, error) {
	opened := false
	err := t.change(ctx, name, func(e *entry) {
		if opened = e.session == nil; opened {
			e.session = s
		}
	})
	return opened, err
}

// close ends s. The status is written though ctx may be done: the client that went away is its subject.
func (t *Table) close(ctx context.Context, name string, s *session) error {
	return t.change(context.WithoutCancel(ctx), name, func(e *entry) {
		if e.session == s {
			e.session = nil
		}
	})
}

// sessions returns the open sessions, those of plugins that were started last first.
func (t *Table) sessions() []*session {
	t.mu.Lock()
	defer t.mu.Unlock()
	var open []*entry
	for _, e := range t.entries {
		if e.session != nil {
			open = append(open, e)
		}
	}
	slices.SortFunc(open, func(a, b *entry) int {
		if a.order != b.order {
			return int(b.order) - int(a.order)
		}
		return strings.Compare(b.name, a.name)
	})
	var all []*session
	for _, e := range open {
		all = append(all, e.session)
	}
	return all
}

func (e *entry) running() bool { return e.started != nil && e.exited == nil }

// status is the plugin's status. An open session outweighs what the frames say: it may be ahead of them.
func (e *entry) status() *servicepb.PluginStatus {
	s := &servicepb.PluginStatus{LastExit: e.lastExit, Confinement: e.confinement()}
	if e.running() {
		s.Pid, s.Started = uint32(e.started.PID), timestamp(e.started.At)
	}
	if e.started != nil {
		s.Restarts = uint32(e.started.Restarts)
	}
	switch {
	case e.session != nil:
		e.session.describe(s)
	case e.running():
		s.State, s.Reason, s.Message = Starting, "NotRegistered", "started, has not registered yet"
	case e.exited != nil && !e.exited.NextStart.IsZero():
		s.State, s.Reason, s.NextStart = BackOff, "Exited", timestamp(e.exited.NextStart)
		s.Message = e.exited.How + ", is started again " + e.exited.NextStart.UTC().Format(time.RFC3339)
	case e.exited != nil:
		s.State, s.Reason, s.Message = Stopped, "Exited", e.exited.How
	default:
		s.State, s.Reason, s.Message = Stopped, "NotStarted", "has not been started"
	}
	return s
}

func (e *entry) confinement() *servicepb.PluginStatus_Confinement {
	c := e.confined
	if c == nil {
		return nil
	}
	return &servicepb.PluginStatus_Confinement{
		Uid: c.UID, Gid: c.GID, Groups: c.Groups, Capabilities: c.Effective, Bounding: c.Bounding, NoNewPrivs: c.NoNewPrivs,
		SeccompFilters: uint32(c.SeccompFilters), Landlock: c.Landlock, Cgroup: c.Cgroup, DeviceFilter: c.DeviceFilter,
	}
}

func controllers(registered []*pluginpb.Controller) []*servicepb.PluginStatus_Controller {
	var all []*servicepb.PluginStatus_Controller
	for _, c := range registered {
		out := &servicepb.PluginStatus_Controller{Name: c.GetName()}
		for _, input := range c.GetInputs() {
			out.Inputs = append(out.Inputs, input.GetType())
		}
		for _, o := range c.GetOutputs() {
			out.Outputs = append(out.Outputs, o.GetType())
		}
		all = append(all, out)
	}
	return all
}

func timestamp(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}
