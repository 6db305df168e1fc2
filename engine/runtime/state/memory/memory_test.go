package memory_test

import (
	"testing"

	"github.com/cosi-os/cosi/engine/runtime/state"
	"github.com/cosi-os/cosi/engine/runtime/state/memory"
	"github.com/cosi-os/cosi/engine/runtime/state/statetest"
)

func shortHistory(state.Kind) memory.Limits { return memory.Limits{Events: statetest.HistoryEvents} }

func TestStoreIsAState(t *testing.T) {
	statetest.Run(t, func(*testing.T) state.State { return memory.New(memory.Options{Limits: shortHistory}) })
}
