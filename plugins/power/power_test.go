package power

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	powerpb "github.com/cosi-os/cosi/api/cosi/power/v1alpha1"
	"github.com/cosi-os/cosi/engine/runtime/plugintest"
	"github.com/cosi-os/cosi/sdk"
)

// start runs the plugin with a directory of its own for input devices, and a clock that stands still.
func start(t *testing.T) (r *plugintest.Runtime, devices string, c *stillClock) {
	t.Helper()
	devices = filepath.Join(t.TempDir(), "input")
	// A pipe stands in for an input device; what is no pipe has no power key.
	identify := func(fd int) (string, bool, error) {
		var stat unix.Stat_t
		err := unix.Fstat(fd, &stat)
		return "Power Button", stat.Mode&unix.S_IFMT == unix.S_IFIFO, err
	}
	r, c = plugintest.Start(t, declared), newStillClock()
	run(t, r, plugin(&button{devices: devices, identify: identify}, c))
	return r, devices, c
}

// run runs a plugin until the test or end ends it.
func run(t *testing.T, r *plugintest.Runtime, p sdk.Plugin) (end func()) {
	t.Helper()
	t.Setenv(sdk.EnvEndpoint, r.Endpoint)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); _ = sdk.Run(ctx, p) }()
	end = func() { cancel(); <-done }
	t.Cleanup(end)
	r.WaitReady()
	return end
}

func waitFor(t *testing.T, r *plugintest.Runtime, id, reason string) *powerpb.ShutdownStatus {
	t.Helper()
	st := &powerpb.ShutdownStatus{}
	r.Wait(id+" is "+reason, func() bool { return r.Get(id, st) != nil && st.GetReason() == reason })
	return st
}

func TestRequestIsActedOnOnce(t *testing.T) {
	r, _, _ := start(t)
	request := &powerpb.ShutdownRequest{Action: powerpb.ShutdownRequest_REBOOT, Reason: "new kernel"}
	r.Apply("now", request)
	st := waitFor(t, r, "now", reasonDraining)
	if st.GetAction() != powerpb.ShutdownRequest_REBOOT || st.GetMessage() != "reboot: new kernel" || !st.GetReady() || st.GetObservedVersion() != "1" {
		t.Errorf("status = %v", st)
	}
	before := r.Get("now", st).GetVersion()
	if before != "2" {
		t.Errorf("version of the status = %s: it is written as Accepted first, then as Draining", before)
	}

	r.Apply("now", request)
	r.Apply("later", &powerpb.ShutdownRequest{Action: powerpb.ShutdownRequest_POWER_OFF})
	later := waitFor(t, r, "later", reasonSuperseded)
	if want := `the node is going down for ShutdownRequest "now"`; later.GetMessage() != want {
		t.Errorf("message = %q, want %q", later.GetMessage(), want)
	}
	r.Delete("later", request)
	r.Wait("its status is gone", func() bool { return r.Get("later", later) == nil })
	if after := r.Get("now", st).GetVersion(); after != before {
		t.Errorf("the status went from version %s to %s: it was acted on again", before, after)
	}
}

func TestRequestStaysActedOnWhenTheRuntimeIsStartedAgain(t *testing.T) {
	r, _, _ := start(t)
	r.Apply("now", &powerpb.ShutdownRequest{Action: powerpb.ShutdownRequest_POWER_OFF})
	st := waitFor(t, r, "now", reasonDraining)
	before := r.Get("now", st).GetVersion()
	r.Stop()
	r.Resume(false)
	r.WaitReady()
	if after := r.Get("now", st).GetVersion(); after != before {
		t.Errorf("the status went from version %s to %s", before, after)
	}
}

func TestPressOfTheButtonPowersOff(t *testing.T) {
	for _, late := range []bool{false, true} {
		r, devices, _ := start(t)
		if late {
			time.Sleep(50 * time.Millisecond) // the plugin has looked and found no directory
		}
		if err := os.Mkdir(devices, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(devices, "event0"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(devices, "event1")
		if err := unix.Mkfifo(path, 0o600); err != nil {
			t.Fatal(err)
		}
		device := openWriter(t, r, path)
		if _, err := device.Write(append(event(evKey, 30, 1), event(evKey, keyPower, 0)...)); err != nil {
			t.Fatal(err)
		}
		if _, err := device.Write(event(evKey, keyPower, 1)); err != nil {
			t.Fatal(err)
		}
		st := waitFor(t, r, buttonID, reasonDraining)
		if want := "power-off: the power button was pressed (Power Button) at 12:00:00.000"; st.GetMessage() != want || st.GetAction() != powerpb.ShutdownRequest_POWER_OFF {
			t.Errorf("status = %v, want a power-off and %q", st, want)
		}
		if m := r.Get(buttonID, &powerpb.ShutdownRequest{}); m.GetOwner() != "power" {
			t.Errorf("owner of the request = %q, want power", m.GetOwner())
		}
		press := &powerpb.PowerEvent{}
		if r.Get(buttonID, press) == nil || press.GetCount() != 1 || press.GetSource() != "evdev Power Button" || press.GetTime().AsTime().IsZero() {
			t.Errorf("event = %v, want one press", press)
		}
		if _, err := device.Write(event(evKey, keyPower2, 1)); err != nil {
			t.Fatal(err)
		}
		r.Wait("the second press is counted", func() bool { return r.Get(buttonID, press) != nil && press.GetCount() == 2 })
	}
}

// openWriter opens a pipe once the plugin has opened its other end.
func openWriter(t *testing.T, r *plugintest.Runtime, path string) *os.File {
	t.Helper()
	var fd int
	r.Wait("the plugin has opened "+path, func() (is bool) {
		var err error
		fd, err = unix.Open(path, unix.O_WRONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		return err == nil
	})
	file := os.NewFile(uintptr(fd), path)
	t.Cleanup(func() { file.Close() })
	return file
}

func TestWords(t *testing.T) {
	for _, test := range []struct {
		request *powerpb.ShutdownRequest
		want    string
	}{
		{&powerpb.ShutdownRequest{Action: powerpb.ShutdownRequest_POWER_OFF}, "power-off"},
		{&powerpb.ShutdownRequest{Action: powerpb.ShutdownRequest_REBOOT, Reason: "why"}, "reboot: why"},
	} {
		if got := words(test.request); got != test.want {
			t.Errorf("words(%v) = %q; want %q", test.request, got, test.want)
		}
	}
}
