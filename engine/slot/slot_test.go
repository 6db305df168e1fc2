package slot

import (
	"encoding/binary"
	"errors"
	"testing"
	"time"

	"golang.org/x/sys/unix"

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

// The kernel reads a target as include/uapi/linux/dm-ioctl.h says.
func TestTarget(t *testing.T) {
	b := target("verity", 32, "1 a b")
	if len(b) != unix.SizeofDmTargetSpec+8 || binary.NativeEndian.Uint64(b[8:]) != 32 || binary.NativeEndian.Uint32(b[20:]) != uint32(len(b)) ||
		string(b[24:31]) != "verity\x00" || string(b[40:]) != "1 a b\x00\x00\x00" {
		t.Errorf("target = %q", b)
	}
	if b := target("verity", 32, "12345678"); b[len(b)-1] != 0 || len(b)%8 != 0 {
		t.Errorf("target = %q; want a zero at its end, in whole words", b)
	}
}
