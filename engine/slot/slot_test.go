package slot

import (
	"errors"
	"testing"
	"time"

	"github.com/cosi-os/cosi/engine/disk"
)

// The drivers are looked for while the root is not there, and no longer.
func TestADiskIsWaitedFor(t *testing.T) {
	for name, test := range map[string]struct {
		comes    int // after how many searches
		patience time.Duration
		want     string
		said     int
	}{
		"it is there":    {0, 0, "", 0},
		"it comes":       {3, time.Minute, "", 0},
		"it comes late":  {7, time.Minute, "", 1},
		"it never comes": {1 << 30, 50 * time.Millisecond, "no disk; waited for 50ms; no driver", 0},
	} {
		searches, said := 0, 0
		w := Waiter{
			Search:   func() []error { searches++; return []error{errors.New("no driver")} },
			Patience: test.patience,
			Log:      func(string) { said++ },
		}
		slot, err := w.wait(func() (disk.Slot, error) {
			if searches < test.comes {
				return disk.Slot{}, errors.New("no disk")
			}
			return disk.Slot{Node: "/dev/vda3"}, nil
		})
		if err != nil {
			if got := err.Error(); got != test.want {
				t.Errorf("%s: %q; want %q", name, got, test.want)
			}
			continue
		}
		if test.want != "" || slot.Node != "/dev/vda3" || searches != test.comes || said != test.said {
			t.Errorf("%s: %v after %d searches, said %d times; want %q after %d, said %d times", name, slot, searches, said, test.want, test.comes, test.said)
		}
	}
}
