package vmtest_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	eventspb "github.com/cosi-os/cosi/api/cosi/events/v1alpha1"
	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	storagepb "github.com/cosi-os/cosi/api/cosi/storage/v1alpha1"
	testpb "github.com/cosi-os/cosi/api/cosi/test/v1alpha1"
	"github.com/cosi-os/cosi/hack/soak/hotplug"
	"github.com/cosi-os/cosi/hack/vmtest"
	"github.com/cosi-os/cosi/tools/qemu/node"
)

// TestStorm: what becomes of generators when more happens than they can hear, when they are killed meanwhile, and when the kernel has no room
// for their programs. "make test-kernels" does it on other kernels.
func TestStorm(t *testing.T) {
	vmtest.Parallel(t, 210)
	n := vmtest.Start(t, vmtest.Options{Definition: "test", Boot: node.Kernel, Extra: hotplug.SCSI.Arguments})
	n.Ready(t)
	t.Run("Best", func(t *testing.T) { checkBest(t, n) })
	t.Run("Overflow", func(t *testing.T) { checkOverflow(t, n) })
	t.Run("NoLeak", func(t *testing.T) { checkNoLeak(t, n) }) // at once: a plugin that has rested has less memory to begin with
	t.Run("LinkOverflow", func(t *testing.T) { checkLinkOverflow(t, n) })
	t.Run("Killed", func(t *testing.T) { checkKilled(t, n) })
	t.Run("Kprobe", func(t *testing.T) { checkKprobe(t, n) })
	t.Run("Loop", func(t *testing.T) { checkLoop(t, n) })
}

// best is how each generator hears if nothing keeps it from it; empty if by what the kernel's functions do.
var best = map[string]string{
	"block-events": "", "kernel-events": "kmsg", "link-events": "", "mount-events": "", "power-events": "", "pressure-events": "psi",
	"process-events": "tracepoint",
}

// checkBest: each generator of the image hears in the best of its modes. A disk is one event as it comes and one as it goes.
func checkBest(t *testing.T, n *vmtest.Node) {
	for _, plugin := range list(t, n, "pluginstatuses") {
		name := plugin.GetMetadata().GetId()
		if _, known := best[name]; strings.HasSuffix(name, "-events") && !known {
			t.Errorf("%s: it is not known how it hears best", name)
		}
	}
	for name, mode := range best {
		var unavailable []string
		if mode == "" {
			mode, unavailable = byFunctions(t, n)
		}
		if u := generator(t, n, name, mode).GetUnavailable(); len(u) != len(unavailable) {
			t.Errorf("%s: unavailable: %v; want %q", name, u, unavailable)
		}
	}
	plugDisks(t, n, hotplug.SCSI, 0, 2, 0)
}

// plugDisks has disks come and go on a bus, in rounds whose numbers no earlier one had. With leaks nothing of them may be left behind, as in hotplug.Config.
func plugDisks(t *testing.T, n *vmtest.Node, bus hotplug.Bus, first, rounds int, leaks time.Duration) {
	t.Helper()
	seed := rand.Uint64()
	r := hotplug.Run(t.Context(), hotplug.Config{
		Machine: n.VM, Client: n.Client, Bus: bus, Dir: t.TempDir(), Seed: seed, First: first, Rounds: rounds, Patience: 15 * time.Second * n.Slower(), Leaks: leaks,
	})
	t.Logf("%s, seed %d: %d rounds, %v", bus.Name, seed, r.Done, r.Held)
	if r.Done != rounds || len(r.Failures) > 0 || leaks > 0 && len(r.Held) == 0 {
		t.Fatalf("%s, seed %d: %+v", bus.Name, seed, r)
	}
}

// checkOverflow: what the ring buffer had no room for while the generator was stopped is counted, and an event says so.
func checkOverflow(t *testing.T, n *vmtest.Node) {
	rage(t, n, "first", "events: 1") // the loop device, too, is an event
	before := settled(t, n)
	e := &eventspb.BlockEvent{}
	last := newest(t, n, "blockevents", e)
	gauge(t, n, "stop", "kill: block-events, signal: SIGSTOP")
	const events = 5000
	st := rage(t, n, "overflow", fmt.Sprintf("events: %d", events))
	gauge(t, n, "continue", "kill: block-events, signal: SIGCONT")
	after := &eventspb.GeneratorStatus{}
	n.Until(t, "generators", "block-events", after, func(*resourcepb.Metadata) bool {
		return after.GetRings()+after.GetLost() >= before.GetRings()+before.GetLost()+events
	})
	rings, lost := after.GetRings()-before.GetRings(), after.GetLost()-before.GetLost()
	if rings+lost != events || lost == 0 || after.GetResynchronisations() == before.GetResynchronisations() {
		t.Errorf("of %d events %d rang and %d were lost: %v; want each counted once, and another resynchronisation", events, rings, lost, after)
	}
	await(t, n, "blockevents", e, func() bool { return e.GetAction() == "Resynchronised" && e.GetBoottimeNs() > last })
	hasSize(t, n, st)
	t.Logf("%d events in %.2f s: %d rang, %d were lost, %d were merged", events, st.GetSeconds(), rings, lost, after.GetCoalesced()-before.GetCoalesced())
}

// checkNoLeak: disks that come and go leave no descriptor open and no memory in use.
func checkNoLeak(t *testing.T, n *vmtest.Node) { plugDisks(t, n, hotplug.SCSI, 10, 28, time.Second) }

// checkKilled: a generator that is killed again and again in a storm tells nothing twice, and in the end has everything right.
func checkKilled(t *testing.T, n *vmtest.Node) {
	const storm, kills = 10000, 3
	const events = storm * kills
	mode, _ := byFunctions(t, n)
	told := collect(t, n)
	restarted := 0 // in the storm
	for kill := range kills {
		id := fmt.Sprintf("killed-%d", kill)
		request := stormRequest(t, n, id, fmt.Sprintf("events: %d, per_second: 500", storm))
		isOver := func() bool { return n.Get(t, "stormrequeststatuses", id, &testpb.StormRequestStatus{}) != nil }
		before := generator(t, n, "block-events", mode)
		gauge(t, n, fmt.Sprintf("kill-%d", kill), "kill: block-events")
		if isOver() {
			t.Errorf("storm %d was over before the generator was killed", kill)
		}
		after := &eventspb.GeneratorStatus{}
		n.Until(t, "generators", "block-events", after, func(*resourcepb.Metadata) bool {
			return after.GetMode() == mode && after.GetSince().AsTime().After(before.GetSince().AsTime())
		})
		if !isOver() {
			restarted++
		}
		hasSize(t, n, over(t, n, request))
	}
	settled(t, n)
	var sum, resynchronised, last uint64
	for _, e := range told() {
		switch {
		case e.GetAction() == "Resynchronised":
			resynchronised++
		case e.GetAction() != "Resized" || e.GetBoottimeNs() <= last:
			t.Errorf("event {%v} after one of %d ns; want each change once, in their order", e, last)
		}
		if e.GetAction() == "Resized" {
			sum += max(e.GetCount(), 1)
			last = e.GetBoottimeNs()
		}
	}
	if sum == 0 || sum > events || resynchronised < kills {
		t.Errorf("%d of %d changes were told, and %d times that some may be missing; want each at most once, and a word for each of %d kills", sum, events, resynchronised, kills)
	}
	t.Logf("killed %d times, %d times back before the storm was over: %d of %d changes were told", kills, restarted, sum, events)
}

// checkKprobe: where the kernel has no room for another program at a function's return, a generator hears by kprobes, as well.
func checkKprobe(t *testing.T, n *vmtest.Node) {
	functions := map[string]string{
		"block-events": "device_del", "power-events": "power_supply_unregister", "link-events": "netif_carrier_off", "mount-events": "path_umount",
	}
	for plugin, function := range functions {
		rage(t, n, plugin, "occupy: "+function)
		gauge(t, n, "kprobe-"+plugin, "kill: "+plugin)
	}
	for plugin := range functions { // they have begun again at the same time
		if u := generator(t, n, plugin, "kprobe").GetUnavailable(); len(u) != 1 || u[0].GetMode() != "fentry" || u[0].GetWhy() == "" {
			t.Errorf("%s: unavailable: %v; want fentry, and why", plugin, u)
		}
	}
	plugDisks(t, n, hotplug.SCSI, 100, 2, 0)
	before := settled(t, n)
	const events = 500
	st := rage(t, n, "heard", fmt.Sprintf("events: %d, per_second: 100", events))
	hasSize(t, n, st)
	after := settled(t, n)
	protect(t, n, st.GetDevice(), "kprobe")
	if rings := after.GetRings() - before.GetRings(); rings != events || after.GetLost() != before.GetLost() {
		t.Errorf("%d rings and %d lost; want %d and none", rings, after.GetLost()-before.GetLost(), events)
	}
	for plugin := range functions {
		n.Delete(t, "stormrequests", plugin)
	}
	gauge(t, n, "again", "kill: block-events")
	mode, unavailable := byFunctions(t, n)
	if u := generator(t, n, "block-events", mode).GetUnavailable(); len(u) != len(unavailable) {
		t.Errorf("unavailable: %v; want that it hears by %s again", u, mode)
	}
}

// rage has the plugin storm do something, and returns what became of it.
func rage(t *testing.T, n *vmtest.Node, id, spec string) *testpb.StormRequestStatus {
	t.Helper()
	return over(t, n, stormRequest(t, n, id, spec))
}

func stormRequest(t *testing.T, n *vmtest.Node, id, spec string) *resourcepb.Resource {
	t.Helper()
	return n.Apply(t, fmt.Sprintf("metadata: {type: StormRequests.test.cosi.dev, id: %s}\nspec: {%s}\n", id, spec))[0]
}

// over waits until a storm is over.
func over(t *testing.T, n *vmtest.Node, request *resourcepb.Resource) *testpb.StormRequestStatus {
	t.Helper()
	m := request.GetMetadata()
	if err := n.Client.Wait(n.Patience(t, time.Minute), n.Kind(t, m.GetType()), m.GetId(), m.GetVersion()); err != nil {
		t.Fatal(err)
	}
	st := &testpb.StormRequestStatus{}
	n.Get(t, "stormrequeststatuses", m.GetId(), st)
	return st
}

// gauge has the plugin gauge do something, and returns what it has measured.
func gauge(t *testing.T, n *vmtest.Node, id, spec string) *testpb.GaugeRequestStatus {
	t.Helper()
	n.Converged(t, n.Apply(t, gaugeRequest(id, spec))...)
	st := &testpb.GaugeRequestStatus{}
	n.Get(t, "gaugerequeststatuses", id, st)
	return st
}

// hasSize waits until Disks has the size that the storm left.
func hasSize(t *testing.T, n *vmtest.Node, st *testpb.StormRequestStatus) {
	t.Helper()
	disk := &storagepb.Disk{}
	n.Until(t, "disks", st.GetDevice(), disk, func(*resourcepb.Metadata) bool { return disk.GetSize() == st.GetSize() })
}

// settled returns what block-events says of itself when it has heard nothing for a moment.
func settled(t *testing.T, n *vmtest.Node) *eventspb.GeneratorStatus {
	t.Helper()
	patience := n.Patience(t, time.Minute)
	for before := (&eventspb.GeneratorStatus{}); ; {
		after := &eventspb.GeneratorStatus{}
		n.Get(t, "generators", "block-events", after)
		if proto.Equal(before, after) && after.GetMode() != "" {
			return after
		}
		before = after
		select {
		case <-time.After(time.Second):
		case <-patience.Done():
			t.Fatalf("it still hears something: %v", after)
		}
	}
}

// event is one of any kind.
type event interface {
	proto.Message
	GetAction() string
	GetBoottimeNs() uint64
}

// newest is the kernel's time of the newest event of a kind, for which e has room.
func newest(t *testing.T, n *vmtest.Node, kind string, e event) (boottime uint64) {
	t.Helper()
	for _, r := range list(t, n, kind) {
		decode(t, r, e)
		boottime = max(boottime, e.GetBoottimeNs())
	}
	return boottime
}

// collect watches BlockEvents from now on; told ends that, and returns them in the order in which they were written.
func collect(t *testing.T, n *vmtest.Node) (told func() []*eventspb.BlockEvent) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	t.Cleanup(stop)
	var all []*eventspb.BlockEvent
	established, ended := make(chan struct{}), make(chan error, 1)
	kind := n.Kind(t, "blockevents")
	go func() {
		ended <- n.Client.Watch(ctx, kind, "", &resourcepb.WatchOptions{BootstrapBookmark: true}, func(e *resourcepb.Event) error {
			switch e.GetEventType() {
			case resourcepb.EventType_NOOP:
				close(established)
			case resourcepb.EventType_CREATED:
				event := &eventspb.BlockEvent{}
				all = append(all, event)
				return proto.Unmarshal(e.GetResource().GetSpec().GetProtoSpec(), event)
			}
			return nil
		})
	}()
	select {
	case <-established:
	case err := <-ended:
		t.Fatal(err)
	}
	return func() []*eventspb.BlockEvent {
		t.Helper()
		select {
		case err := <-ended:
			t.Error(err)
		default:
			stop()
			<-ended
		}
		return all
	}
}
