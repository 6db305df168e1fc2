package pressureevents

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	eventspb "github.com/cosi-os/cosi/api/cosi/events/v1alpha1"
	"github.com/cosi-os/cosi/plugins/internal/doorbell"
)

// TestAKernelThatTakesNoTriggers: its files, which cannot be written to here, say how long tasks have waited.
func TestAKernelThatTakesNoTriggers(t *testing.T) {
	dir := t.TempDir()
	waited := func(micros int) {
		t.Helper()
		text := fmt.Sprintf("some avg10=0.00 avg60=0.00 avg300=0.00 total=%d\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n", micros)
		if err := os.WriteFile(filepath.Join(dir, "cpu"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// The kernel refuses to open a directory for writing, and lets it be opened for reading.
	if err := os.Mkdir(filepath.Join(dir, "memory"), 0o700); err != nil {
		t.Fatal(err)
	}
	waited(7)
	r := start(t, files{node: dir, groups: t.TempDir()})
	generator, status, event := &eventspb.GeneratorStatus{}, &eventspb.PressureThresholdStatus{}, &eventspb.PressureEvent{}
	r.Wait("it polls", func() bool { return r.Get(name, generator) != nil && generator.GetMode() == "poll" })
	if u := generator.GetUnavailable(); len(u) != 1 || u[0].GetMode() != "psi" || u[0].GetWhy() == "" {
		t.Errorf("generator %v; want said why there are no triggers", generator)
	}
	r.Apply("busy", threshold(""))
	r.Wait("it is watched", func() bool { return r.Get("busy", status) != nil && status.GetReady() })
	if r.Get(doorbell.ID(1), event) != nil {
		t.Errorf("event %v; nobody has waited", event)
	}
	time.Sleep(2 * often) // it has been read
	waited(70)
	r.Wait("it is passed", func() bool { return r.Get(doorbell.ID(1), event) != nil })
	if event.GetAction() != "Stalled" || event.GetThreshold() != "busy" || event.GetTotal().AsDuration() != 70*time.Microsecond {
		t.Errorf("event %v", event)
	}
}

func TestAWindowSlides(t *testing.T) {
	one := &trigger{threshold: &eventspb.PressureThreshold{Stall: durationpb.New(10), Window: durationpb.New(2 * time.Second)}}
	for i, step := range []struct {
		total time.Duration
		want  bool
	}{{100, false}, {104, false}, {109, false}, {114, true}, {118, false}, {124, true}, {133, false}, {133, false}, {134, false}, {142, false}, {143, false}, {152, true}} {
		if got := one.passed(reading{time.Duration(i) * time.Second, step.total}); got != step.want {
			t.Errorf("second %d, %d in all: passed %v; want %v", i, step.total, got, step.want)
		}
	}
}
