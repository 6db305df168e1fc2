package node

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cosi-os/cosi/engine/output"
)

// A trial that goes on for too long ends in a reboot, and nothing else does.
func TestATrialEnds(t *testing.T) {
	for name, test := range map[string]struct {
		on    bool
		err   error
		after time.Duration
		want  bool
	}{
		"still on trial": {true, nil, 10 * time.Minute, true},
		"it is over":     {true, nil, -time.Second, true},
		"blessed":        {false, nil, 10 * time.Minute, false},
		"nobody knows":   {false, errors.New("no disk"), 10 * time.Minute, false},
	} {
		synctest.Test(t, func(t *testing.T) {
			n := New(Config{}, output.NewLog())
			began := time.Now()
			n.endTrial(t.Context(), func() (bool, error) { return test.on, test.err }, test.after)
			if waited := time.Since(began); waited != max(test.after, 0) {
				t.Errorf("%s: after %v; want %v", name, waited, test.after)
			}
			select {
			case s := <-n.down:
				if !test.want || !s.Reboot {
					t.Errorf("%s: %+v", name, s)
				}
			default:
				if test.want {
					t.Errorf("%s: no reboot", name)
				}
			}
		})
	}
}
