package supervisor

import (
	"slices"
	"testing"
	"time"
)

func TestBackoffDoublesUpToItsMaximum(t *testing.T) {
	var steps []time.Duration
	var step, wait time.Duration
	for range 10 {
		step, wait = DefaultBackoff.next(step, 0)
		if wait > step || wait < step*3/4-1 {
			t.Errorf("wait %s of step %s", wait, step)
		}
		steps = append(steps, step/time.Millisecond)
	}
	if want := []time.Duration{100, 200, 400, 800, 1600, 3200, 6400, 12800, 25600, 30000}; !slices.Equal(steps, want) {
		t.Errorf("steps %d ms; want %d", steps, want)
	}
	if step, _ = DefaultBackoff.next(step, 59*time.Second); step != 30*time.Second {
		t.Errorf("after 59 s: %s", step)
	}
	if step, _ = DefaultBackoff.next(step, time.Minute); step != 100*time.Millisecond {
		t.Errorf("after a healthy minute: %s", step)
	}
}

func TestParseStatus(t *testing.T) {
	c := parseStatus("Name:\tmount\nUid:\t0\t901\t901\t901\nGid:\t0\t902\t0\t0\nGroups:\t10000 10001 \nCapEff:\t0000000000200002\n" +
		"CapBnd:\t0000000000200002\nNoNewPrivs:\t1\nSeccomp:\t2\nSeccomp_filters:\t2\n")
	if c.UID != 901 || c.GID != 902 || !slices.Equal(c.Groups, []uint32{10000, 10001}) || !c.NoNewPrivs || c.SeccompFilters != 2 ||
		!slices.Equal(c.Effective, []string{"CAP_DAC_OVERRIDE", "CAP_SYS_ADMIN"}) || len(c.Bounding) != 2 {
		t.Errorf("parseStatus = %+v", c)
	}
}

func FuzzParseStatus(f *testing.F) {
	f.Add("Uid:\t0\t901\t901\t901\nGroups:\t1 2\nCapEff:\tfff\n")
	f.Add("Uid:\nGid: x\nSeccomp_filters:")
	f.Fuzz(func(t *testing.T, text string) {
		if c := parseStatus(text); len(c.Effective) > 64 || c.PID != 0 {
			t.Errorf("parseStatus(%q) = %+v", text, c)
		}
	})
}
