package power

import (
	"encoding/binary"
	"os"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func event(kind, code uint16, value int32) []byte {
	e := make([]byte, eventSize)
	binary.NativeEndian.PutUint16(e[16:], kind)
	binary.NativeEndian.PutUint16(e[18:], code)
	binary.NativeEndian.PutUint32(e[20:], uint32(value))
	return e
}

// device hands out what is sent to it.
type device chan []byte

func (d device) Read(p []byte) (int, error) {
	data, ok := <-d
	if !ok {
		return 0, os.ErrClosed
	}
	return copy(p, data), nil
}

func TestTheKeySwitchesOff(t *testing.T) {
	for _, test := range []struct {
		name  string
		alone bool
		held  time.Duration
		want  string
	}{
		{"a short press is the power plugin's business", false, time.Second, ""},
		{"a long one is not", false, 5 * time.Second, "power key held"},
		{"without a runtime a short one is enough", true, time.Millisecond, "power key pressed while the runtime is down"},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var reason atomic.Value
				reason.Store("")
				keys := &Keys{Alone: func() bool { return test.alone }, Off: func(r string) { reason.Store(r) }}
				d := make(device)
				done := make(chan error)
				go func() { done <- keys.Read(d) }()
				d <- append(event(4, 4, 1), event(eventKey, 30, 1)...) // another key
				d <- append(event(eventKey, keyPower, 1), event(0, 0, 0)...)
				time.Sleep(test.held)
				d <- event(eventKey, keyPower, 0)
				time.Sleep(10 * time.Second)
				if got := reason.Load(); got != test.want {
					t.Errorf("switched off with %q; want %q", got, test.want)
				}
				close(d)
				<-done
			})
		})
	}
}

func FuzzParseKey(f *testing.F) {
	f.Add(event(eventKey, keyPower, 1))
	f.Add([]byte{1})
	f.Fuzz(func(t *testing.T, data []byte) {
		if _, ok := parseKey(data); ok && len(data) < eventSize {
			t.Errorf("a key in %d bytes", len(data))
		}
	})
}
