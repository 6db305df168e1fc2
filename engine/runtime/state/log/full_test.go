package log

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"testing"

	"github.com/cosi-os/cosi/engine/runtime/state"
)

// limit makes d a disk of so many bytes, as long as they are not lifted.
func (t *tape) limit(bytes *int64) {
	t.fault = func(_ int, a action) (int, error) {
		if a.what != "write" && a.what != "truncate" {
			return len(a.data), nil
		}
		used := int64(0)
		for _, i := range t.names {
			if i != a.inode {
				used += int64(len(i.data))
			}
		}
		if used+max(int64(len(a.inode.data)), a.offset+int64(len(a.data))) > *bytes && a.offset+int64(len(a.data)) > int64(len(a.inode.data)) {
			return 0, syscall.ENOSPC
		}
		return len(a.data), nil
	}
}

func TestAFullDiskRefusesWritesUntilThereIsSpace(t *testing.T) {
	d, ctx := newTape(nil), t.Context()
	size := int64(256 << 10)
	d.limit(&size)
	o := Options{SegmentBytes: 64 << 10, SnapshotBytes: 1 << 30}
	s := mustOpen(t, d, o)
	things := state.Kind{Namespace: "config", Type: "Things"}
	created := 0
	var err error
	for ; err == nil; created++ {
		_, err = s.Create(ctx, resource("Things", fmt.Sprintf("r%d", created), 1<<10), state.WriteOptions{})
	}
	created--
	if !errors.Is(err, state.ErrNoSpace) || created < 150 {
		t.Fatalf("write %d = %v; want ErrNoSpace when the disk of 256 KiB is full", created, err)
	}

	all, err := s.List(ctx, things, state.Query{})
	if err != nil || len(all) != created {
		t.Errorf("List finds %d resources, %v; want %d", len(all), err, created)
	}
	w, err := s.Watch(ctx, state.WatchRequest{Kind: things, TailEvents: 1})
	if err != nil {
		t.Fatal(err)
	}
	if events, err := w.Next(ctx); err != nil || events[0].GetResource() != all[len(all)-1] && len(events) != 1 {
		t.Errorf("Next = %v, %v; want the last event", events, err)
	}
	for i := range 10 {
		if _, err := s.Teardown(ctx, state.PointerTo(all[i]), state.WriteOptions{}); err != nil {
			t.Errorf("Teardown on a full disk = %v", err)
		}
		if err := s.Destroy(ctx, state.PointerTo(all[i]), state.WriteOptions{}); err != nil {
			t.Errorf("Destroy on a full disk = %v; it may be what makes room", err)
		}
	}
	if _, err := s.Create(ctx, resource("Things", "more", 1<<10), state.WriteOptions{}); !errors.Is(err, state.ErrNoSpace) {
		t.Errorf("Create = %v; want ErrNoSpace still", err)
	}

	size *= 2
	if _, err := s.Create(context.Background(), resource("Things", "more", 1<<10), state.WriteOptions{}); err != nil {
		t.Errorf("with space again: Create = %v", err)
	}
	s.Close()
	if all, err := mustOpen(t, d, o).List(ctx, things, state.Query{}); err != nil || len(all) != created-10+1 {
		t.Errorf("opened again it has %d resources, %v; want %d", len(all), err, created-10+1)
	}
}
