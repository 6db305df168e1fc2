// Package doorbelltest is what the tests of generators share.
package doorbelltest

import (
	"context"
	"errors"
	"os"
	"testing"

	"github.com/cilium/ebpf"

	"github.com/cosi-os/cosi/plugins/internal/doorbell"
)

// Line is a listener that says what the test puts into it.
type Line[N any] struct {
	Notes chan N
	Lost  chan uint64
}

// NewLine returns a Line on which nothing has been said.
func NewLine[N any]() Line[N] { return Line[N]{make(chan N), make(chan uint64)} }

// Bell hears the line, as if it were eBPF.
func (l Line[N]) Bell(mode doorbell.Mode) *doorbell.Bell[N] {
	return &doorbell.Bell[N]{Sources: []doorbell.Source[N]{{Mode: mode, Open: func() (doorbell.Listener[N], error) { return l, nil }}}}
}

// Listen passes on what is said.
func (l Line[N]) Listen(ctx context.Context, hear func(N), lost func(uint64)) error {
	for {
		select {
		case n := <-l.Notes:
			hear(n)
		case n := <-l.Lost:
			lost(n)
		case <-ctx.Done():
			return nil
		}
	}
}

// Close does nothing: the line may be opened again.
func (Line[N]) Close() error { return nil }

// Verify checks that every program gets past the verifier of this machine's kernel, where that lets it in at all.
func Verify(t *testing.T, load func() (*ebpf.CollectionSpec, error)) {
	spec, err := load()
	if err != nil {
		t.Fatal(err)
	}
	for name := range spec.Programs {
		t.Run(name, func(t *testing.T) {
			one := spec.Copy()
			for other := range one.Programs {
				if other != name {
					delete(one.Programs, other)
				}
			}
			collection, err := doorbell.Load(one)
			if errors.Is(err, os.ErrPermission) {
				t.Skipf("this kernel does not permit programs of type %v: %v", spec.Programs[name].Type, err)
			}
			if err != nil {
				t.Fatalf("%+v", err)
			}
			collection.Close()
		})
	}
}
