package uevent

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestParse(t *testing.T) {
	event, ok := parse([]byte("add@/devices/virtual/block/loop0\x00ACTION=add\x00SUBSYSTEM=block\x00DEVNAME=loop0\x00"))
	if !ok || event.Action != "add" || event.Path != "/devices/virtual/block/loop0" || event.Variables["DEVNAME"] != "loop0" {
		t.Fatalf("parse = %+v, %v", event, ok)
	}
	if _, ok := parse([]byte("libudev\x00junk")); ok {
		t.Fatal("parse took a message without an action")
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("add@/x\x00A=b\x00"))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, message []byte) { parse(message) })
}

func TestWatchReceivesAndEnds(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to write to a uevent file")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	events, done := make(chan Event, 64), make(chan error, 1)
	go func() { done <- Watch(ctx, func(e Event) { events <- e }) }()
	if first := <-events; first.Action != Lost {
		t.Errorf("the first event is %+v; want that what was before was not heard", first)
	}
	// From then on it hears.
	if err := os.WriteFile(filepath.Join("/sys/class/mem/null", "uevent"), []byte("change"), 0); err != nil {
		t.Fatal(err)
	}
	for received := false; !received; {
		select {
		case e := <-events:
			received = e.Action == "change" && e.Variables["DEVNAME"] == "null"
		case <-ctx.Done():
			t.Fatal("no event within 10 s")
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatalf("Watch = %v; want nil", err)
	}
}
