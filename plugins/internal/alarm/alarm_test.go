package alarm

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

// TestWakes: at the last time that was set, once, and at one that is over already.
func TestWakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := New(System{})
		var woken []time.Duration
		began := time.Now()
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- a.Watch(ctx, func() { woken = append(woken, time.Since(began)) }) }()
		a.Ring(began.Add(time.Minute))
		synctest.Wait()
		a.Ring(began.Add(time.Hour))
		time.Sleep(2 * time.Hour)
		a.Ring(began)
		synctest.Wait()
		a.Ring(began.Add(3 * time.Hour))
		synctest.Wait()
		a.Ring(time.Time{})
		time.Sleep(2 * time.Hour)
		if len(woken) != 2 || woken[0] != time.Hour || woken[1] != 2*time.Hour {
			t.Errorf("woken after %v; want after one hour, and after two", woken)
		}
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Watch = %v", err)
		}
	})
}
