package log_test

import (
	"errors"
	"testing"

	"github.com/cosi-os/cosi/engine/runtime/state"
	"github.com/cosi-os/cosi/engine/runtime/state/log"
	"github.com/cosi-os/cosi/engine/runtime/state/memory"
	"github.com/cosi-os/cosi/engine/runtime/state/statetest"
)

func open(t testing.TB, dir string, o log.Options) *log.Store {
	t.Helper()
	if o.Limits == nil {
		o.Limits = func(state.Kind) memory.Limits { return memory.Limits{Events: statetest.HistoryEvents} }
	}
	s, err := log.Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func TestStoreIsAState(t *testing.T) {
	statetest.RunStore(t, func(t *testing.T) state.State { return open(t, t.TempDir(), log.Options{}) })
}

func TestStoreOutlivesTheProcess(t *testing.T) {
	statetest.RunDurable(t, func(t *testing.T) func() state.State {
		dir := t.TempDir()
		var s *log.Store
		return func() state.State {
			if s != nil {
				s.Close()
			}
			s = open(t, dir, log.Options{})
			return s
		}
	})
}

func TestOneProcessHasTheDirectory(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, log.Options{})
	if _, err := log.Open(dir, log.Options{}); !errors.Is(err, log.ErrLocked) {
		t.Errorf("a second Open = %v; want ErrLocked", err)
	}
	s.Close()
	open(t, dir, log.Options{})
}
