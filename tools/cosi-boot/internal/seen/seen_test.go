package seen

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"
)

func macs(all []Machine) string {
	text := ""
	for _, m := range all {
		text += m.MAC + " "
	}
	return text
}

func TestAFullListDropsWhatWasHeardOfLongestAgo(t *testing.T) {
	now := time.Unix(1000, 0)
	l := New(3, func() time.Time { return now })
	for _, mac := range []string{"c", "b", "a"} {
		l.Note(mac, (*Machine).Begin)
	}
	now = now.Add(time.Hour)
	l.Note("c", func(m *Machine) { m.Reach(Kernel) })
	_, before, _ := l.Since(0)
	l.Note("d", (*Machine).Begin)
	all, _, whole := l.Since(before)
	if macs(all) != "a c d " || !whole {
		t.Errorf("after the fourth: %s, whole %v; want all but b", macs(all), whole)
	}
	c, ok := l.Get("c")
	if !ok || c.Stage != Kernel || c.Boots != 1 || !c.First.Equal(time.Unix(1000, 0)) || !c.Last.Equal(now) {
		t.Errorf("c is %+v", c)
	}
	if _, ok := l.Get("b"); ok {
		t.Error("b is still there")
	}
}

func TestWhatIsRepeatedIsTheSameBoot(t *testing.T) {
	m := Machine{}
	for _, step := range []struct {
		reach Stage
		boots int
	}{{DHCP, 1}, {Loader, 1}, {DHCP, 2}, {DHCP, 2}} {
		m.Refuse("no image")
		if m.Begin(); m.Boots != step.boots || m.Stage != DHCP || m.Problem != "" {
			t.Errorf("%+v; want %d boots", m, step.boots)
		}
		m.Reach(step.reach)
	}
}

func TestWhoWaitsIsToldWhatHasChanged(t *testing.T) {
	l := New(10, time.Now)
	l.Note("a", (*Machine).Begin)
	l.Note("b", (*Machine).Begin)
	all, first, whole := l.Since(0)
	if macs(all) != "a b " || !whole {
		t.Fatalf("Since(0) = %s, whole %v", macs(all), whole)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := l.Wait(ctx, first); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Wait without a change = %v", err)
	}
	waited := make(chan error, 2)
	for range cap(waited) {
		go func() { waited <- l.Wait(t.Context(), first) }()
	}
	l.Note("b", func(m *Machine) { m.Refuse("no image") })
	for range cap(waited) {
		if err := <-waited; err != nil {
			t.Errorf("Wait = %v", err)
		}
	}
	all, _, whole = l.Since(first)
	if len(all) != 1 || all[0].MAC != "b" || all[0].Problem != "no image" || whole {
		t.Errorf("Since(%d) = %+v, whole %v", first, all, whole)
	}
}

func TestManyAtOnce(t *testing.T) {
	l := New(50, time.Now)
	done := make(chan bool)
	for w := range 8 {
		go func() {
			for i := range 500 {
				l.Note(fmt.Sprint(w*i%100), func(m *Machine) { m.Reach(Script) })
				l.Since(uint64(i))
			}
			done <- true
		}()
	}
	for range 8 {
		<-done
	}
	if all, n, _ := l.Since(0); len(all) > 50 || n != 4000 {
		t.Errorf("%d machines after %d changes", len(all), n)
	}
}
