// Package storm is a plugin for tests and the benchmark: asked by a StormRequest, it changes the size of a loop device, or addresses and routes of
// the loopback link, so often and so fast, each time an event, or occupies a function of the kernel with eBPF programs, so that no other can be
// attached to its return, or a processor with one, so that the kernel calls it locked up.
package storm

import (
	"context"
	_ "embed"
	"errors"
	"io"
	"time"

	testpb "github.com/cosi-os/cosi/api/cosi/test/v1alpha1"
	"github.com/cosi-os/cosi/sdk"
)

// Types of the plugin's input and output.
const (
	requestType = "StormRequests.test.cosi.dev"
	statusType  = "StormRequestStatuses.test.cosi.dev"
)

// Version is the plugin's version.
const Version = "0.1.0"

//go:embed plugin.json
var declared []byte

// Plugin returns the plugin.
func Plugin() sdk.Plugin {
	return plugin(&storm{
		open: func() (resizer, error) { return newDevice() }, links: func() (changer, error) { return newNetwork() },
		occupy: occupy, lockUp: lockUp, held: map[string]io.Closer{},
	})
}

func plugin(s *storm) sdk.Plugin {
	return sdk.Plugin{
		Declaration: declared,
		Version:     Version,
		Controllers: []sdk.Controller{{
			Name: "storms", Inputs: []string{requestType}, Outputs: []string{statusType}, Reconcile: s.reconcile,
		}},
	}
}

// resizer is a device whose size can be changed.
type resizer interface {
	// Resize makes the device that many MiB large. It must be another size than it has.
	Resize(mib int64) error
	Name() string
}

// changer is a network of which something can be changed.
type changer interface {
	// Change does the next of several things, each of which is another than the last.
	Change() error
}

// storm is the plugin at work. Its fields are used by reconcile only.
type storm struct {
	open   func() (resizer, error)
	links  func() (changer, error)
	occupy func(function string) (io.Closer, error)
	lockUp func(time.Duration) error

	device  resizer // nil before the first storm
	events  uint64  // in all
	network changer // nil before the first storm of links
	held    map[string]io.Closer
}

// reconcile acts on each version of a request until it has succeeded, and lets go of a function when its request is gone. It may be that a
// device is not there yet.
func (s *storm) reconcile(ctx context.Context, state *sdk.State) error {
	var errs []error
	for _, r := range sdk.List[*testpb.StormRequest](state, requestType) {
		if st, ok := sdk.Get[*testpb.StormRequestStatus](state, statusType, r.GetId()); ok && st.Spec.GetObservedVersion() == r.GetVersion() && st.Spec.GetReady() {
			continue
		}
		st := &testpb.StormRequestStatus{Ready: true, Reason: "Done", ObservedVersion: r.GetVersion()}
		if err := s.act(ctx, r.GetId(), r.Spec, st); err != nil {
			st.Ready, st.Reason, st.Message = false, "Failed", err.Error()
			errs = append(errs, err)
		}
		errs = append(errs, state.Write(ctx, statusType, r.GetId(), st, r.Metadata))
	}
	for _, id := range state.Outputs(statusType) {
		if _, ok := sdk.Get[*testpb.StormRequest](state, requestType, id); !ok {
			errs = append(errs, s.release(id), state.Delete(ctx, statusType, id))
		}
	}
	return errors.Join(errs...)
}

func (s *storm) act(ctx context.Context, id string, r *testpb.StormRequest, st *testpb.StormRequestStatus) (err error) {
	switch {
	case r.GetOccupy() != "":
		if err := s.release(id); err != nil {
			return err
		}
		s.held[id], err = s.occupy(r.GetOccupy())
		return err
	case r.GetLockUp() > 0:
		return s.lockUp(time.Duration(r.GetLockUp()) * time.Second)
	case r.GetLinkEvents() > 0:
		return s.change(ctx, r, st)
	}
	return s.resize(ctx, r, st)
}

func (s *storm) release(id string) error {
	held := s.held[id]
	delete(s.held, id)
	if held == nil {
		return nil
	}
	return held.Close()
}

// resize makes block events.
func (s *storm) resize(ctx context.Context, r *testpb.StormRequest, st *testpb.StormRequestStatus) (err error) {
	if s.device == nil {
		if s.device, err = s.open(); err != nil {
			return err
		}
	}
	st.Seconds, err = rage(ctx, r.GetEvents(), r.GetPerSecond(), func() error {
		s.events++
		return s.device.Resize(size(s.events))
	})
	st.Device, st.Size = s.device.Name(), uint64(size(s.events))<<20
	return err
}

// change makes link events.
func (s *storm) change(ctx context.Context, r *testpb.StormRequest, st *testpb.StormRequestStatus) (err error) {
	if s.network == nil {
		if s.network, err = s.links(); err != nil {
			return err
		}
	}
	st.Seconds, err = rage(ctx, r.GetLinkEvents(), r.GetPerSecond(), s.network.Change)
	return err
}

// rage makes events, and returns how long that took. Those that should have been made while it slept come at once.
func rage(ctx context.Context, events, rate uint64, event func() error) (seconds float64, err error) {
	began := time.Now()
	for made := range events {
		if rate > 0 {
			due := began.Add(time.Duration(made) * time.Second / time.Duration(rate))
			if early := time.Until(due); early > 0 {
				time.Sleep(max(early, time.Millisecond))
			}
		}
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		if err := event(); err != nil {
			return 0, err
		}
	}
	return time.Since(began).Seconds(), nil
}

// size is that of the device after so many events, in MiB: never the same twice in a row.
func size(events uint64) int64 { return 1 + int64(events%1000) }
