package hotplug

import (
	"strings"
	"testing"
	"time"

	testpb "github.com/cosi-os/cosi/api/cosi/test/v1alpha1"
)

func TestWhatIsNotGivenBackIsFound(t *testing.T) {
	type process = testpb.GaugeRequestStatus_Process
	measured := func(change func(generator, engine, runtime *process)) *testpb.GaugeRequestStatus {
		generator, engine, runtime := &process{Name: "block-events", Pid: 40, Descriptors: 12, PrivateDirty: 4 << 20}, &process{Name: "engine", Pid: 1, Descriptors: 30}, &process{Name: "runtime", Pid: 30, Descriptors: 50}
		change(generator, engine, runtime)
		return &testpb.GaugeRequestStatus{Processes: []*process{engine, runtime, generator}}
	}
	before := measured(func(_, _, _ *process) {})
	for name, c := range map[string]struct {
		change func(generator, engine, runtime *process)
		want   string
	}{
		"nothing":                        {func(_, _, _ *process) {}, ""},
		"a breath":                       {func(g, _, _ *process) { g.PrivateDirty += breath }, ""},
		"memory":                         {func(g, _, _ *process) { g.PrivateDirty += breath + 1 }, "want no more memory"},
		"a descriptor of the generator":  {func(g, _, _ *process) { g.Descriptors++ }, "block-events: 12 descriptors, then 13"},
		"a descriptor of PID 1":          {func(_, e, _ *process) { e.Descriptors++ }, "engine: 30 descriptors, then 31"},
		"a connection to the runtime":    {func(_, _, r *process) { r.Descriptors++ }, ""},
		"the generator began once again": {func(g, _, _ *process) { g.Pid++ }, "want the same process"},
		"the generator is gone":          {func(g, _, _ *process) { g.Name = "" }, "want the same process"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := held(before, measured(c.change))
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("held = %v; want %q", err, c.want)
			}
		})
	}
}

func TestWhatIsGivenBackLateIsNoLeak(t *testing.T) {
	measured := func(descriptors uint32, memory uint64) *testpb.GaugeRequestStatus {
		var all []*testpb.GaugeRequestStatus_Process
		for i, name := range []string{"engine", "runtime", "block-events"} {
			all = append(all, &testpb.GaugeRequestStatus_Process{Name: name, Pid: uint32(1 + i), Descriptors: descriptors, PrivateDirty: memory})
		}
		return &testpb.GaugeRequestStatus{Processes: all}
	}
	before := measured(12, 4<<20)
	gives := func(back int) func(int) (*testpb.GaugeRequestStatus, error) {
		return func(again int) (*testpb.GaugeRequestStatus, error) {
			if again < back {
				return measured(13, 6<<20), nil
			}
			return before, nil
		}
	}
	for _, c := range []struct {
		back   int
		within time.Duration
		leak   bool
	}{{0, 0, false}, {3, time.Hour, false}, {3, -1, true}} {
		if all, err := settle(before, time.Now().Add(c.within), gives(c.back)); (err != nil) != c.leak || len(all) != 3 {
			t.Errorf("settle of what is given back by measurement %d, within %s: %v, %v; want it a leak: %v", c.back, c.within, all, err, c.leak)
		}
	}
}
