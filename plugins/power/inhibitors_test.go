package power

import (
	"context"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	powerpb "github.com/cosi-os/cosi/api/cosi/power/v1alpha1"
	"github.com/cosi-os/cosi/engine/runtime/plugintest"
	"github.com/cosi-os/cosi/sdk"
)

const (
	delay = powerpb.ShutdownInhibitor_DELAY
	block = powerpb.ShutdownInhibitor_BLOCK
)

var powerOff = &powerpb.ShutdownRequest{Action: powerpb.ShutdownRequest_POWER_OFF}

func inhibits(mode powerpb.ShutdownInhibitor_Mode, limit, lease time.Duration) *powerpb.ShutdownInhibitor {
	return &powerpb.ShutdownInhibitor{
		Mode: mode, Holder: "backup of db3", Reason: "a snapshot is being written", Limit: durationpb.New(limit), Lease: durationpb.New(lease),
	}
}

func waitForInhibitor(t *testing.T, r *plugintest.Runtime, id, reason string) *powerpb.ShutdownInhibitorStatus {
	t.Helper()
	st := &powerpb.ShutdownInhibitorStatus{}
	r.Wait("the inhibitor "+id+" is "+reason, func() bool { return r.Get(id, st) != nil && st.GetReason() == reason })
	return st
}

// TestStatusOfAnInhibitor: says whether it counts, without any request.
func TestStatusOfAnInhibitor(t *testing.T) {
	r, c := start(t)
	i := &powerpb.ShutdownInhibitor{Mode: delay, Reason: "a snapshot is being written"}
	r.Apply("db3", i)
	st := waitForInhibitor(t, r, "db3", reasonHeld)
	if !st.GetReady() || st.GetObservedVersion() != "1" || st.GetHolder() != "db3" || !st.GetExpires().AsTime().Equal(c.Now().Add(30*time.Second)) {
		t.Errorf("status %v; want that db3 holds it for 30 s", st)
	}
	c.forward(30 * time.Second)
	if st := waitForInhibitor(t, r, "db3", reasonExpired); st.GetReady() || st.GetMessage() == "" {
		t.Errorf("status %v; want that it is not ready, and why", st)
	}
	r.Apply("db3", i)
	waitForInhibitor(t, r, "db3", reasonHeld)
	r.Delete("db3", i)
	r.Wait("its status is gone", func() bool { return r.Get("db3", &powerpb.ShutdownInhibitorStatus{}) == nil })
}

func TestDelayIsWaitedFor(t *testing.T) {
	for name, end := range map[string]func(*plugintest.Runtime, *stillClock){
		"until it is let go":     func(r *plugintest.Runtime, _ *stillClock) { r.Delete("db3", &powerpb.ShutdownInhibitor{}) },
		"until its limit":        func(_ *plugintest.Runtime, c *stillClock) { c.forward(time.Minute) },
		"until its lease is out": func(_ *plugintest.Runtime, c *stillClock) { c.forward(20 * time.Second) },
	} {
		t.Run(name, func(t *testing.T) {
			r, c := start(t)
			i := inhibits(delay, time.Minute, time.Hour)
			if strings.Contains(name, "lease") {
				i.Lease = durationpb.New(20 * time.Second)
			}
			r.Apply("db3", i)
			r.Apply("now", powerOff)
			st := waitFor(t, r, "now", reasonWaiting)
			if want := "power-off; waits for backup of db3 (a snapshot is being written)"; st.GetMessage() != want || st.GetReady() || len(st.GetHolders()) != 1 {
				t.Fatalf("status %v; want %q", st, want)
			}
			h, until := st.GetHolders()[0], c.Now().Add(time.Minute)
			if h.GetInhibitor() != "db3" || h.GetHolder() != "backup of db3" || h.GetMode() != delay || !h.GetUntil().AsTime().Equal(until) ||
				!st.GetUntil().AsTime().Equal(until) || !st.GetSince().AsTime().Equal(c.Now()) {
				t.Errorf("status %v; want that it goes on at %v", st, until)
			}
			end(r, c)
			waitFor(t, r, "now", reasonDraining)
		})
	}
}

// TestLeaseIsRenewed: by writing the inhibitor as it is.
func TestLeaseIsRenewed(t *testing.T) {
	r, c := start(t)
	i := inhibits(delay, time.Hour, 20*time.Second)
	r.Apply("db3", i)
	r.Apply("now", powerOff)
	waitFor(t, r, "now", reasonWaiting)
	for range 3 {
		c.forward(15 * time.Second)
		version := r.Apply("db3", i).GetMetadata().GetVersion()
		r.Wait("it is renewed", func() bool { return waitForInhibitor(t, r, "db3", reasonHeld).GetObservedVersion() == version })
	}
	waitFor(t, r, "now", reasonWaiting)
	c.forward(20 * time.Second)
	waitFor(t, r, "now", reasonDraining)
}

func TestBlockRefuses(t *testing.T) {
	r, _ := start(t)
	r.Apply("db3", inhibits(block, time.Second, time.Hour))
	r.Apply("now", powerOff)
	st := waitFor(t, r, "now", reasonRefused)
	if want := "power-off; refused by backup of db3 (a snapshot is being written)"; st.GetMessage() != want || st.GetReady() || len(st.GetHolders()) != 1 ||
		st.GetHolders()[0].GetUntil() != nil || st.GetHolders()[0].GetMode() != block {
		t.Errorf("status %v; want %q", st, want)
	}
	r.Delete("db3", &powerpb.ShutdownInhibitor{})
	r.Apply("later", &powerpb.ShutdownRequest{Action: powerpb.ShutdownRequest_REBOOT})
	waitFor(t, r, "later", reasonDraining)
	r.Apply("last", powerOff)
	waitFor(t, r, "last", reasonSuperseded)
	waitFor(t, r, "now", reasonRefused)
}

func TestBlockThatComesWhileARequestWaits(t *testing.T) {
	r, _ := start(t)
	r.Apply("db3", inhibits(delay, time.Minute, time.Hour))
	r.Apply("now", powerOff)
	waitFor(t, r, "now", reasonWaiting)
	r.Apply("db3", inhibits(block, time.Minute, time.Hour))
	waitFor(t, r, "now", reasonRefused)
	// The writer insists.
	r.Apply("now", &powerpb.ShutdownRequest{Action: powerpb.ShutdownRequest_POWER_OFF, Force: true})
	if st := waitFor(t, r, "now", reasonDraining); st.GetObservedVersion() != "2" {
		t.Errorf("status %v; want that of version 2", st)
	}
}

// TestWaitingDoesNotBeginAgain: however often the request is written.
func TestWaitingDoesNotBeginAgain(t *testing.T) {
	r, c := start(t)
	r.Apply("db3", inhibits(delay, time.Minute, time.Hour))
	r.Apply("now", powerOff)
	before := waitFor(t, r, "now", reasonWaiting).GetUntil().AsTime()
	c.forward(40 * time.Second)
	r.Apply("now", &powerpb.ShutdownRequest{Action: powerpb.ShutdownRequest_POWER_OFF, Force: true})
	st := &powerpb.ShutdownStatus{}
	r.Wait("the new version is looked at", func() bool { return r.Get("now", st) != nil && st.GetObservedVersion() == "2" })
	if !st.GetUntil().AsTime().Equal(before) {
		t.Errorf("it waits until %v; want %v, as before", st.GetUntil().AsTime(), before)
	}
	c.forward(20 * time.Second)
	waitFor(t, r, "now", reasonDraining)
}

// TestARefusedRequestIsTriedAgain: when it is written again, and when it was deleted and another one has its name and version.
func TestARefusedRequestIsTriedAgain(t *testing.T) {
	for name, again := range map[string]func(*plugintest.Runtime){
		"written": func(r *plugintest.Runtime) { r.Apply("now", powerOff) },
		"created": func(r *plugintest.Runtime) { r.Delete("now", powerOff); r.Apply("now", powerOff) },
	} {
		t.Run(name, func(t *testing.T) {
			r, _ := start(t)
			r.Apply("db3", inhibits(block, time.Minute, time.Hour))
			r.Apply("now", powerOff)
			waitFor(t, r, "now", reasonRefused)
			r.Delete("db3", &powerpb.ShutdownInhibitor{})
			again(r)
			waitFor(t, r, "now", reasonDraining)
		})
	}
}

func TestARequestThatWaitsIsGivenUp(t *testing.T) {
	r, c := start(t)
	r.Apply("db3", inhibits(delay, time.Minute, time.Hour))
	r.Apply("now", powerOff)
	waitFor(t, r, "now", reasonWaiting)
	r.Delete("now", powerOff)
	r.Wait("its status is gone", func() bool { return r.Get("now", &powerpb.ShutdownStatus{}) == nil })
	c.forward(time.Minute)
	r.Apply("db3", inhibits(block, time.Minute, time.Hour))
	r.Apply("other", powerOff)
	waitFor(t, r, "other", reasonRefused)
	if r.Get("now", &powerpb.ShutdownStatus{}) != nil {
		t.Error("it has a status again")
	}
}

func TestCriticalRequestWaits30Seconds(t *testing.T) {
	r, c := start(t)
	r.Apply("db3", inhibits(block, time.Hour, time.Hour))
	r.Apply("now", &powerpb.ShutdownRequest{Action: powerpb.ShutdownRequest_POWER_OFF, Critical: true, Reason: "battery"})
	if st := waitFor(t, r, "now", reasonWaiting); !st.GetUntil().AsTime().Equal(c.Now().Add(30 * time.Second)) {
		t.Errorf("status %v; want that it waits for 30 s", st)
	}
	c.forward(30 * time.Second)
	waitFor(t, r, "now", reasonDraining)
}

// guard is a plugin that holds an inhibitor.
func guard(mode powerpb.ShutdownInhibitor_Mode) sdk.Plugin {
	return sdk.Plugin{Declaration: guardDeclared, Version: "1", Controllers: []sdk.Controller{{
		Name: "guard", Outputs: []string{inhibitorType},
		Reconcile: func(ctx context.Context, s *sdk.State) error {
			return s.Write(ctx, inhibitorType, "guard", &powerpb.ShutdownInhibitor{
				Mode: mode, Holder: "somebody else", Reason: "two voters are left", Limit: durationpb.New(time.Hour),
			}, nil)
		},
	}}}
}

var guardDeclared = []byte(`{"name": "guard", "description": "holds", "outputs": ["ShutdownInhibitors.power.cosi.dev"]}`)

// TestAPluginHoldsWhileItIsThere: without a lease, and under its own name.
func TestAPluginHoldsWhileItIsThere(t *testing.T) {
	r, c := start(t)
	end := run(t, plugintest.Join(t, r, guardDeclared), guard(delay))
	r.Apply("now", powerOff)
	st := waitFor(t, r, "now", reasonWaiting)
	if st.GetHolders()[0].GetHolder() != "guard" {
		t.Errorf("status %v; want that the plugin is the holder", st)
	}
	if st := waitForInhibitor(t, r, "guard", reasonHeld); st.GetHolder() != "guard" || !st.GetReady() || st.GetExpires() != nil {
		t.Errorf("status of the inhibitor %v; want that the plugin holds it without an end", st)
	}
	c.forward(50 * time.Minute)
	r.Apply("other", powerOff)
	waitFor(t, r, "other", reasonWaiting)
	waitFor(t, r, "now", reasonWaiting)
	end()
	waitFor(t, r, "now", reasonDraining)
	waitForInhibitor(t, r, "guard", reasonHolderGone)
}

// TestARestartedPluginGoesOn: it knows for how long a request has waited, and what was refused.
func TestARestartedPluginGoesOn(t *testing.T) {
	r, c := plugintest.Start(t, declared), newStillClock()
	end := run(t, r, plugin(c))
	r.Apply("db3", inhibits(block, time.Minute, time.Hour))
	r.Apply("refused", powerOff)
	waitFor(t, r, "refused", reasonRefused)
	r.Apply("db3", inhibits(delay, time.Minute, time.Hour))
	r.Apply("now", powerOff)
	before := waitFor(t, r, "now", reasonWaiting)
	end()
	c.forward(40 * time.Second)
	run(t, r, plugin(c))
	if st := waitFor(t, r, "now", reasonWaiting); !st.GetUntil().AsTime().Equal(before.GetUntil().AsTime()) {
		t.Errorf("it waits until %v; want %v, as before", st.GetUntil().AsTime(), before.GetUntil().AsTime())
	}
	c.forward(20 * time.Second)
	waitFor(t, r, "now", reasonDraining)
	waitFor(t, r, "refused", reasonRefused)
}
