package log

import (
	"math/rand/v2"
	"testing"
	"time"
)

func TestCompanyIsWaitedForWhileItComes(t *testing.T) {
	start := time.Unix(0, 0)
	at := func(ms int) time.Time { return start.Add(time.Duration(ms) * time.Millisecond) }
	var c company
	if got := c.wait(at(0)); got > 0 {
		t.Errorf("before anything was written it waits %v; want not at all", got)
	}
	c.took(at(0), at(100), 16)
	if got, want := c.wait(at(105)), 70*time.Millisecond; got != want {
		t.Errorf("5 ms after a batch of 100 ms it waits %v; want %v", got, want)
	}
	if got := c.wait(at(180)); got > 0 {
		t.Errorf("80 ms after a batch of 100 ms it waits %v; want not at all", got)
	}
	for _, rest := range []int{8, 16, 32} {
		c.came(7, 16)
		for range rest {
			if got := c.wait(at(100)); got > 0 {
				t.Fatalf("nobody came, and it waits %v; want a rest of %d batches", got, rest)
			}
		}
		if got := c.wait(at(100)); got <= 0 {
			t.Errorf("after a rest of %d batches it waits %v; want another try", rest, got)
		}
	}
	c.came(16, 16)
	if got := c.wait(at(100)); got <= 0 {
		t.Errorf("all came, and it waits %v; want it to go on", got)
	}
}

// A disk that is quicker than its writers does not keep them from sharing it.
func TestCompanyIsWaitedForAsLongAsItTakes(t *testing.T) {
	start := time.Unix(0, 0)
	for writers, want := range map[int]time.Duration{1: 75, 2: 100, 16: 800, 64: 3200} {
		var c company
		c.took(start, start.Add(100*time.Microsecond), writers)
		if got := c.wait(start.Add(100 * time.Microsecond)); got != want*time.Microsecond {
			t.Errorf("after a batch of %d writers that took 100 µs it waits %v; want %d µs", writers, got, want)
		}
	}
}

// A writer alone never waits: its company is itself.
func TestAWriterAloneHasABatchOfItsOwn(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 1))
	d := newTape(nil)
	s := mustOpen(t, d, tiny)
	s.company.took(time.Now().Add(-time.Hour), time.Now(), 1) // were it to wait, it would for most of an hour
	for i := range 20 {
		begun := time.Now()
		if err := step(s, i, random); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(begun); took > time.Minute {
			t.Fatalf("it waited %v", took)
		}
	}
	if got, took := s.Syncs(); got != 20 || took <= 0 {
		t.Errorf("20 writes of one writer cost %d fdatasyncs of %v; want 20", got, took)
	}
}
