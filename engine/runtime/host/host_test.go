package host

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	powerpb "github.com/cosi-os/cosi/api/cosi/power/v1alpha1"
	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	servicepb "github.com/cosi-os/cosi/api/cosi/service/v1alpha1"
	"github.com/cosi-os/cosi/engine/runtime/node"
	"github.com/cosi-os/cosi/engine/runtime/output"
	"github.com/cosi-os/cosi/engine/runtime/plugins"
	"github.com/cosi-os/cosi/engine/runtime/state"
	"github.com/cosi-os/cosi/engine/runtime/state/memory"
	"github.com/cosi-os/cosi/engine/wire"
	"google.golang.org/protobuf/proto"
)

// newHost returns a Host over a real store, and PID 1's end of its connection.
func newHost(t *testing.T) (*Host, net.Conn, *memory.Store) {
	t.Helper()
	ours, theirs := net.Pipe()
	t.Cleanup(func() { ours.Close(); theirs.Close() })
	store := memory.New(memory.Options{})
	out := output.New(store)
	n := node.New(node.Config{State: store, Output: out})
	return New(wire.NewConn(ours), n, plugins.NewTable(out, "mount"), NewLogs(out), func(*wire.Module) {}), theirs, store
}

func TestReceiveEnds(t *testing.T) {
	for name, c := range map[string]struct {
		say  func(net.Conn)
		want string
	}{
		"when the engine goes":      {func(c net.Conn) { c.Close() }, ErrEngineGone.Error()},
		"with a frame cut short":    {func(c net.Conn) { c.Write([]byte{0, 0, 0, 9, '{'}); c.Close() }, "cut short"},
		"with a frame too long":     {func(c net.Conn) { c.Write([]byte{255, 0, 0, 0}) }, "the limit"},
		"with a frame that is none": {func(c net.Conn) { c.Write([]byte{0, 0, 0, 1, 'x'}) }, "invalid character"},
		"with another version":      {func(c net.Conn) { wire.NewConn(c).Send(wire.Up{Hello: &wire.Hello{Version: 9}}) }, "version 9"},
	} {
		h, engine, _ := newHost(t)
		go c.say(engine)
		if err := h.Receive(t.Context()); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v; want %q", name, err, c.want)
		}
	}
}

func TestFramesThatAreNotKnownArePassedOver(t *testing.T) {
	h, engine, store := newHost(t)
	go func() {
		conn := wire.NewConn(engine)
		conn.Send(map[string]any{"novelty": map[string]any{"a": 1}})
		conn.Send(wire.Up{Synced: &wire.Synced{}})
		conn.Send(wire.Up{Started: &wire.Started{Name: "mount", PID: 1}})
		engine.Close()
	}()
	if err := h.Receive(t.Context()); !errors.Is(err, ErrEngineGone) {
		t.Fatal(err)
	}
	if _, err := store.Get(t.Context(), state.Pointer{Kind: plugins.Statuses, ID: "mount"}); err != nil {
		t.Error(err)
	}
}

func TestLogLines(t *testing.T) {
	for _, c := range []struct {
		line, want string
		fields     int
	}{
		{"plain", "plain", 0},
		{`{"a":1,"b":{"c":[true,null]}}`, `{"a":1,"b":{"c":[true,null]}}`, 2},
		{`{"a":`, `{"a":`, 0},
		{`{}`, `{}`, 0},
		{"\xff\xfe", "\uFFFD", 0},
		{"", "", 0},
	} {
		got := logLine(&wire.Output{Name: "p", Stream: "stderr", Sequence: 4, Line: c.line})
		if got.GetLine() != c.want || len(got.GetFields().GetFields()) != c.fields || got.GetStream() != "stderr" || got.GetSequence() != 4 {
			t.Errorf("logLine(%q) = %v", c.line, got)
		}
	}
}

func FuzzLogLine(f *testing.F) {
	for _, seed := range []string{"", "plain", `{"a":1}`, "{\"\xff\":1}", `{"a":1e999}`, `{"a":1,"a":2}`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, line string) {
		if _, err := proto.Marshal(logLine(&wire.Output{Line: line})); err != nil {
			t.Errorf("%q: %v", line, err)
		}
	})
}

func TestLogsNeverBlockAndShowTheGap(t *testing.T) {
	store := memory.New(memory.Options{})
	l := NewLogs(output.New(store))
	for i := range queued + 100 {
		l.Offer(&wire.Output{Name: "p", Sequence: uint64(i + 1), Line: fmt.Sprint(i)})
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- l.Run(ctx) }()
	last := &servicepb.LogLine{}
	for end := time.Now().Add(30 * time.Second); last.GetSequence() != queued; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("the last line is %v; want number %d", last, queued)
		}
		if r, err := store.Get(ctx, state.Pointer{Kind: LogKind, ID: "p"}); err == nil {
			proto.Unmarshal(r.GetSpec().GetProtoSpec(), last)
		}
	}
	cancel()
	<-ended
}

func TestOnlyAPowerfulPluginThatIsDrainingTakesTheNodeDown(t *testing.T) {
	h, engine, store := newHost(t)
	orders := make(chan wire.Down, 10)
	go func() {
		for conn := wire.NewConn(engine); ; {
			var down wire.Down
			if conn.Receive(&down) != nil {
				return
			}
			orders <- down
		}
	}()
	ended := make(chan error, 1)
	go func() { ended <- h.Shutdown(t.Context(), store, func(owner string) bool { return owner == "power" }) }()
	for _, c := range []struct{ id, owner, reason string }{{"a", "mount", "Draining"}, {"b", "power", "Accepted"}} {
		write(t, store, c.id, c.owner, &powerpb.ShutdownStatus{Reason: c.reason, Action: powerpb.ShutdownRequest_REBOOT})
	}
	write(t, store, "c", "power", &powerpb.ShutdownStatus{Reason: "Draining"}) // no action
	select {
	case order := <-orders:
		t.Fatalf("the node goes down: %v", order.Shutdown)
	case <-time.After(50 * time.Millisecond):
	}
	write(t, store, "d", "power", &powerpb.ShutdownStatus{Reason: "Draining", Message: "upgrade", Action: powerpb.ShutdownRequest_REBOOT})
	if order := <-orders; order.Shutdown == nil || !order.Shutdown.Reboot || order.Shutdown.Reason != "upgrade" {
		t.Errorf("order %+v", order)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func write(t *testing.T, s state.State, id, owner string, spec *powerpb.ShutdownStatus) {
	t.Helper()
	content, err := proto.Marshal(spec)
	if err != nil {
		t.Fatal(err)
	}
	r := &resourcepb.Resource{Metadata: &resourcepb.Metadata{Namespace: ShutdownStatuses.Namespace, Type: ShutdownStatuses.Type, Id: id}, Spec: &resourcepb.Spec{ProtoSpec: content}}
	if _, err := s.Create(t.Context(), r, state.WriteOptions{Owner: owner}); err != nil {
		t.Fatal(err)
	}
}
