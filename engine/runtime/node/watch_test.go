package node

import (
	"context"
	"errors"
	"testing"
	"time"

	machinepb "github.com/cosi-os/cosi/api/cosi/machine/v1alpha1"
	networkpb "github.com/cosi-os/cosi/api/cosi/network/v1alpha1"
	servicepb "github.com/cosi-os/cosi/api/cosi/service/v1alpha1"
	"github.com/cosi-os/cosi/engine/runtime/output"
	"github.com/cosi-os/cosi/engine/runtime/state"
	"github.com/cosi-os/cosi/engine/runtime/state/memory"
	"github.com/cosi-os/cosi/engine/wire"
	"google.golang.org/protobuf/proto"
)

const waitTime = 30 * time.Second

func TestANodeFollowsWhatItsPluginsSay(t *testing.T) {
	store := memory.New(memory.Options{})
	out := output.New(store)
	shown, reached := make(chan string, 10), make(chan string, 10)
	n := New(Config{
		State: store, Output: out, Version: "1",
		Show:   func(lines []string) { shown <- lines[0] },
		Render: func(s *Snapshot) []string { return []string{s.Readiness().Message} },
		Stage:  func(name string) { reached <- name },
	})
	n.Stage(wire.Stage{Name: "kernel", Milliseconds: 5})
	n.Stage(wire.Stage{Name: "kernel", Milliseconds: 7})
	p := state.Pointer{Kind: pluginStatuses, ID: "mount"}
	if err := out.Put(context.Background(), p, &servicepb.PluginStatus{State: "Starting"}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- n.Run(ctx) }()

	n.Watchdog(wire.Watchdog{Identity: "Software Watchdog"})
	wait(t, "which watchdog", func() bool { return status(store).GetWatchdog() == "Software Watchdog" })
	wait(t, "not ready", func() bool { return status(store).GetReason() == "PluginsStarting" })
	if len(shown) > 0 {
		t.Errorf("the console says %q while the node boots", <-shown)
	}
	if s := status(store).GetStages(); len(s) != 1 || s[0].GetMilliseconds() != 5 {
		t.Errorf("stages %v; want the first time", s)
	}
	out.Put(context.Background(), p, &servicepb.PluginStatus{State: "Ready", Ready: true})
	wait(t, "ready", func() bool { return status(store).GetReady() })
	if name := <-reached; name != "ready" {
		t.Errorf("stage %q; want ready", name)
	}
	if line := <-shown; line != "" {
		t.Errorf("the console says %q; want nothing to complain of", line)
	}
	address := state.Pointer{Kind: addressStatuses, ID: "a"}
	out.Put(context.Background(), address, &networkpb.AddressStatus{Ready: true, Address: "192.0.2.1/24"})
	if name := <-reached; name != "address" {
		t.Errorf("stage %q; want address", name)
	}
	out.Put(context.Background(), p, &servicepb.PluginStatus{State: "Starting"})
	if line := <-shown; line != "waiting for plugins: mount" {
		t.Errorf("the console says %q", line)
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("Run: %v", err)
	}
	if len(reached) > 0 {
		t.Errorf("stage %q was reached after ready", <-reached)
	}
}

func status(s state.State) *machinepb.MachineStatus {
	m := &machinepb.MachineStatus{}
	if r, err := s.Get(context.Background(), state.Pointer{Kind: machineStatuses, ID: Machine}); err == nil {
		proto.Unmarshal(r.GetSpec().GetProtoSpec(), m)
	}
	return m
}

func wait(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(waitTime); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("still not so: %s", what)
		}
	}
}
