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

// A quick disk has taken a batch before a timer could end, and on a slow one many writers need longer than three quarters of its time.
func TestCompanyIsWaitedForAsLongAsItTakes(t *testing.T) {
	start := time.Unix(0, 0)
	for _, c := range []struct {
		sync    time.Duration
		writers int
		want    time.Duration
	}{
		{80 * time.Microsecond, 64, 0},
		{400 * time.Microsecond, 1, 300 * time.Microsecond},
		{400 * time.Microsecond, 64, 3200 * time.Microsecond},
	} {
		var company company
		company.took(start, start.Add(c.sync), c.writers)
		if got := company.wait(start.Add(c.sync)); got != c.want {
			t.Errorf("after a batch of %d writers that took %v it waits %v; want %v", c.writers, c.sync, got, c.want)
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
