package log

import "time"

// company decides whether the leader of a batch waits for the writers of the batch before, who have just been answered and may be about
// to write again. Were it to start at once, a steady crowd of writers would fall into parts that take turns at a slow disk. It never waits
// when a writer is alone or the disk is quick; it waits until three quarters of an fdatasync have passed since they were answered, or as long
// as the machine needs to hear of them all again, if that is more; and when they do not come in that time it does not try again for a while:
// then they are busy elsewhere, and the disk is better used at once.
type company struct {
	sync     time.Duration // what a batch takes lately
	writers  int           // of the last batch
	answered time.Time
	rest     int // batches until the next try
	shy      int // batches to rest when nobody comes
}

// mostShy is how many batches may pass without a try.
const mostShy = 256

// again is what the answer to a writer and its next write take a small machine, with all that the writer does in between.
const again = 50 * time.Microsecond

// quick is an fdatasync that is over before a crowd has come, and a timer before it.
const quick = 300 * time.Microsecond

// took notes a batch that is done.
func (c *company) took(begun, now time.Time, writers int) {
	c.writers, c.answered = writers, now
	if c.sync == 0 {
		c.sync = now.Sub(begun)
	}
	c.sync += (now.Sub(begun) - c.sync) / 8
}

// wait returns how long to wait for the writers of the last batch, 0 or less for not at all.
func (c *company) wait(now time.Time) time.Duration {
	if c.sync < quick {
		return 0
	}
	left := c.answered.Add(max(c.sync*3/4, time.Duration(c.writers)*again)).Sub(now)
	if left > 0 && c.rest > 0 {
		c.rest--
		return 0
	}
	return left
}

// came notes how many writers came of those that were expected.
func (c *company) came(n, expected int) {
	if 2*n >= expected {
		c.shy = 0
		return
	}
	c.shy = min(max(8, 2*c.shy), mostShy)
	c.rest = c.shy
}

// gather lets those join b, which the caller leads, who have something to write: whoever has been heard of, and, if the disk is slow, the
// writers of the last batch. early is how many of b joined before those were answered.
func (s *Store) gather(b *batch, early int) {
	s.others.yield()
	s.mu.Lock()
	want := early + s.company.writers
	if b.err != nil || b.writers >= want {
		s.mu.Unlock()
		return
	}
	wait := s.company.wait(time.Now())
	if wait <= 0 {
		s.mu.Unlock()
		return
	}
	b.want, b.full = want, make(chan struct{})
	s.mu.Unlock()

	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-b.full:
	case <-timer.C:
	}
	s.mu.Lock()
	s.company.came(b.writers-early, want-early)
	b.want = 0
	s.mu.Unlock()
}
