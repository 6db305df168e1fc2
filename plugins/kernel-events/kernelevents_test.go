package kernelevents

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	eventspb "github.com/cosi-os/cosi/api/cosi/events/v1alpha1"
	"github.com/cosi-os/cosi/engine/runtime/plugintest"
	"github.com/cosi-os/cosi/plugins/internal/doorbell"
	"github.com/cosi-os/cosi/plugins/internal/doorbell/doorbelltest"
	"github.com/cosi-os/cosi/sdk"
)

// start runs the plugin until the test or end ends it.
func start(t *testing.T, r *plugintest.Runtime, line doorbelltest.Line[record]) (end func()) {
	t.Helper()
	t.Setenv(sdk.EnvEndpoint, r.Endpoint)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); _ = sdk.Run(ctx, plugin(line.Bell(doorbell.Kmsg), crashes{t.TempDir()})) }()
	end = func() { cancel(); <-done }
	t.Cleanup(end)
	r.WaitReady()
	return end
}

// A plugin that starts again reads the log from its beginning, and writes only what is new.
func TestEachRecordIsOneEvent(t *testing.T) {
	r := plugintest.Start(t, declared)
	line := doorbelltest.NewLine[record]()
	end := start(t, r, line)
	event, status := &eventspb.KernelEvent{}, &eventspb.GeneratorStatus{}
	first := record{priority: 4, sequence: 8, at: 7, text: "link is down", subsystem: "net", device: "n3"}
	line.Notes <- first
	r.Wait("the first is there", func() bool { return r.Get(doorbell.ID(1), event) != nil })
	if event.GetAction() != "Logged" || event.GetSeverity() != "warning" || event.GetFacility() != "kern" || event.GetDevice() != "n3" ||
		event.GetSubsystem() != "net" || event.GetMessage() != "link is down" || event.GetBoottimeNs() != 7 || event.GetTime() == nil || event.GetSequence() != 8 {
		t.Errorf("event %v", event)
	}
	end()
	start(t, r, line)
	line.Notes <- first
	line.Notes <- record{priority: 3, sequence: 9, text: "link is dead"}
	found := func() (texts []string) {
		for n := uint64(1); r.Get(doorbell.ID(n), event) != nil; n++ {
			if event.GetAction() != resynchronised {
				texts = append(texts, event.GetMessage())
			}
		}
		return texts
	}
	r.Wait("the second is there", func() bool { return slices.Contains(found(), "link is dead") })
	if texts := found(); !slices.Equal(texts, []string{"link is down", "link is dead"}) {
		t.Errorf("events %q; want each record once", texts)
	}
	r.Wait("it says how it hears", func() bool { return r.Get(name, status) != nil && status.GetMode() == "kmsg" && status.GetRings() == 2 })
}

// The log is one packet for each record.
func TestWarningsAndWorseAreHeard(t *testing.T) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fds[1])
	l := &log{fds[0], "log"}
	defer l.Close()
	ctx, cancel := context.WithCancel(t.Context())
	heard, lost, done := make(chan record, 10), make(chan uint64, 10), make(chan error, 1)
	go func() { done <- l.Listen(ctx, func(r record) { heard <- r }, func(n uint64) { lost <- n }) }()
	for _, text := range []string{"4,7,1,-;a\n", "5,8,2,-;b\n", "rubbish", "0,9,3,-;c\n", "6,15,4,-;d\n", "11,16,5,-;e\n"} {
		if _, err := unix.Write(fds[1], []byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range []string{"a", "c", "e"} {
		if r := <-heard; r.text != want {
			t.Errorf("heard %+v; want %s", r, want)
		}
	}
	if n := <-lost; n != 5 || len(lost) > 0 {
		t.Errorf("%d lost, and %d times more; want 5, those between 9 and 15", n, len(lost))
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// The log of this machine's kernel is one that can be read.
func TestTheLogOfThisMachine(t *testing.T) {
	l, err := openLog("/dev/kmsg")
	if errors.Is(err, os.ErrPermission) || errors.Is(err, os.ErrNotExist) {
		t.Skipf("this machine does not show its log: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprintf("kernel-events: tested at %d", time.Now().UnixNano())
	if err := os.WriteFile("/dev/kmsg", []byte("<4>"+text+"\n"), 0); err != nil {
		t.Skipf("this machine does not let its log be written to: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	found := false
	err = errors.Join(l.Listen(ctx, func(r record) {
		if r.text == text {
			found = r.facility() == "user" && r.at > 0
			cancel()
		}
	}, func(uint64) {}), l.Close())
	if err != nil || !found {
		t.Errorf("%v, found %v; want %q by a user", err, found, text)
	}
}
