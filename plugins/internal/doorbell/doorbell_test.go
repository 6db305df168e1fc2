package doorbell

import (
	"context"
	"errors"
	"slices"
	"testing"
)

// line is a listener that says what the test puts into it.
type line struct {
	notes  chan int
	lost   chan uint64
	closed bool
}

func (l *line) Listen(ctx context.Context, hear func(int), lost func(uint64)) error {
	for {
		select {
		case n, open := <-l.notes:
			if !open {
				return errors.New("cut off")
			}
			hear(n)
		case n := <-l.lost:
			lost(n)
		case <-ctx.Done():
			return nil
		}
	}
}

func (l *line) Close() error {
	l.closed = true
	return nil
}

func refuses(mode Mode) Source[int] {
	return Source[int]{Mode: mode, Open: func() (Listener[int], error) { return nil, errors.New("not permitted") }, Without: "anything"}
}

// watch runs b until the test ends; the channel says when it is woken.
func watch(t *testing.T, b *Bell[int]) (woken <-chan struct{}, end func() error) {
	t.Helper()
	wakes := make(chan struct{}, 10*most)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- b.Watch(ctx, func() { wakes <- struct{}{} }) }()
	return wakes, func() error { cancel(); return <-done }
}

func TestTheFirstSourceThatOpensIsHeard(t *testing.T) {
	l := &line{notes: make(chan int), lost: make(chan uint64)}
	b := &Bell[int]{Sources: []Source[int]{refuses(Fentry), refuses(Kprobe), {Netlink, func() (Listener[int], error) { return l, nil }, "names"}, refuses(Poll)}}
	woken, end := watch(t, b)
	if status := b.Status(); status != nil || len(woken) > 0 {
		t.Errorf("Status() = %v, woken %d times; want that it does not hear before the first Take", status, len(woken))
	}
	b.Take()
	<-woken
	if notes, gap := b.Take(); len(notes) != 0 || gap != Opened {
		t.Errorf("Take() = %v, %v; want that everything is looked at in the beginning", notes, gap)
	}
	for n := range 3 {
		l.notes <- n
		<-woken
	}
	l.lost <- 5
	<-woken
	notes, gap := b.Take()
	if !slices.Equal(notes, []int{0, 1, 2}) || gap != Lost {
		t.Errorf("Take() = %v, %v; want 0, 1, 2 and that some were lost", notes, gap)
	}
	b.PutBack(notes, NoGap)
	l.notes <- 3
	<-woken
	if notes, gap := b.Take(); !slices.Equal(notes, []int{0, 1, 2, 3}) || gap != NoGap {
		t.Errorf("Take() after PutBack = %v, %v; want the old notes before the new", notes, gap)
	}
	s := b.Status()
	if s.GetMode() != "netlink" || s.GetRings() != 4 || s.GetLost() != 5 || s.GetResynchronisations() != 1 || s.GetSince() == nil || s.GetMessage() != "names" || len(s.GetUnavailable()) != 2 {
		t.Errorf("Status() = %v", s)
	}
	if u := s.GetUnavailable()[0]; u.GetMode() != "fentry" || u.GetWhy() != "not permitted" {
		t.Errorf("the first that is unavailable: %v", u)
	}
	if err := end(); err != nil || !l.closed {
		t.Errorf("Watch = %v, closed %v; want an end in order", err, l.closed)
	}
}

func TestNothingOpens(t *testing.T) {
	b := &Bell[int]{Sources: []Source[int]{refuses(Fentry), refuses(Netlink)}}
	woken, end := watch(t, b)
	b.Take()
	<-woken
	err := end()
	if err == nil || err.Error() != "fentry: not permitted\nnetlink: not permitted" {
		t.Errorf("Watch = %v; want each reason", err)
	}
	if s := b.Status(); s.GetMode() != "none" || s.GetMessage() == "" {
		t.Errorf("Status() = %v; want that nothing is heard", s)
	}
}

func TestASourceThatIsCutOffIsAnError(t *testing.T) {
	l := &line{notes: make(chan int)}
	b := &Bell[int]{Sources: []Source[int]{{Mode: Netlink, Open: func() (Listener[int], error) { return l, nil }}}}
	close(l.notes)
	b.Take()
	if err := b.Watch(t.Context(), func() {}); err == nil || err.Error() != "cut off" || !l.closed {
		t.Errorf("Watch = %v, closed %v; want the listener's error, for the SDK to begin again", err, l.closed)
	}
}

func TestWhatIsLostInTheBeginningIsALoss(t *testing.T) {
	l := &line{lost: make(chan uint64)}
	b := &Bell[int]{Sources: []Source[int]{{Mode: Netlink, Open: func() (Listener[int], error) { return l, nil }}}}
	woken, end := watch(t, b)
	b.Take()
	<-woken
	l.lost <- 3
	<-woken
	if _, gap := b.Take(); gap != Lost {
		t.Errorf("Take() = %v; want that some were lost", gap)
	}
	if s := b.Status(); s.GetLost() != 3 || s.GetResynchronisations() != 1 {
		t.Errorf("Status() = %v; want 3 lost, and a resynchronisation", s)
	}
	if err := end(); err != nil {
		t.Error(err)
	}
}

func TestAGeneratorThatIsTooSlowLooksAtEverything(t *testing.T) {
	l := &line{notes: make(chan int)}
	b := &Bell[int]{Sources: []Source[int]{{Mode: Netlink, Open: func() (Listener[int], error) { return l, nil }}}}
	woken, end := watch(t, b)
	b.Take()
	<-woken
	b.Take()
	for n := range most + 7 {
		l.notes <- n
		<-woken
	}
	if notes, gap := b.Take(); len(notes) != most || gap != Lost {
		t.Errorf("Take() = %d notes, %v; want %d, and that more were lost", len(notes), gap, most)
	}
	if s := b.Status(); s.GetRings() != most+7 || s.GetLost() != 7 || s.GetResynchronisations() != 1 {
		t.Errorf("Status() = %v; want 7 lost, in one go", s)
	}
	if err := end(); err != nil {
		t.Error(err)
	}
}
