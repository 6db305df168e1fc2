package main

import (
	"context"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	eventspb "github.com/cosi-os/cosi/api/cosi/events/v1alpha1"
	powerpb "github.com/cosi-os/cosi/api/cosi/power/v1alpha1"
)

// TestEvents: all kinds of events in one stream, in the order in which they happened, and then what comes.
func TestEvents(t *testing.T) {
	p := newPerson(t, "unix://"+startRuntime(t))
	at := func(second int) *timestamppb.Timestamp {
		return timestamppb.New(time.Date(2026, 1, 2, 3, 4, second, 5e6, time.UTC))
	}
	if said := p.want(exitOK, "events"); said != "" {
		t.Errorf("without any, events prints %q", said)
	}
	p.write("block-events", "blockevents", "000000000001", nil, &eventspb.BlockEvent{Action: "Added", Device: "vdb", DeviceType: "disk", Time: at(3)})
	p.write("block-events", "blockevents", "000000000002", nil, &eventspb.BlockEvent{Action: "IOError", Device: "vdb", DeviceType: "disk", Time: at(9), Message: "I/O error, sector 8"})
	p.write("power-events", "powerevents", "000000000001", nil, &powerpb.PowerEvent{Action: "PowerButton", Device: "Power Button", Time: at(5)})
	const want = `2026-01-02T03:04:03.005Z  BlockEvent  Added  vdb  disk
2026-01-02T03:04:05.005Z  PowerEvent  PowerButton  Power Button
2026-01-02T03:04:09.005Z  BlockEvent  IOError  vdb  disk  I/O error, sector 8
`
	if said := p.want(exitOK, "events"); said != want {
		t.Errorf("events prints\n%swant\n%s", said, want)
	}
	if said := p.want(exitOK, "events", "-o", "json"); strings.Count(said, "\n") != 3 || !strings.HasPrefix(said, `{"event":"CREATED",`) {
		t.Errorf("events -o json prints %s", said)
	}
	ctx, stop := context.WithCancel(t.Context())
	follower := newPerson(t, p.endpoint)
	done := make(chan int)
	go func() { done <- follower.runFor(ctx, "events", "-w") }()
	p.eventually(func() bool { return follower.out.String() == want })
	p.write("block-events", "blockevents", "000000000003", nil, &eventspb.BlockEvent{Action: "Removed", Device: "vdb", DeviceType: "disk", Time: at(12)})
	p.eventually(func() bool {
		return follower.out.String() == want+"2026-01-02T03:04:12.005Z  BlockEvent  Removed  vdb  disk\n"
	})
	stop()
	if code := <-done; code != exitOK {
		t.Errorf("exit code %d after an interrupt", code)
	}
}
