package hotplug

import (
	"context"
	"fmt"
	"time"

	testpb "github.com/cosi-os/cosi/api/cosi/test/v1alpha1"
	"github.com/cosi-os/cosi/hack/gauge"
)

// warm is how many rounds go by before the first measurement.
const warm = 3

// breath is how much memory may come on top: the heap grows by what the ring of events holds, until it is full, and breathes with the
// collector.
const breath = 1 << 20

// Held is what a process holds, after the first rounds and after the last.
type Held struct {
	Process       string
	Before, After *testpb.GaugeRequestStatus_Process
}

func (h Held) String() string {
	return fmt.Sprintf("%s: %d descriptors, then %d; %d KiB of its own, then %d",
		h.Process, h.Before.GetDescriptors(), h.After.GetDescriptors(), h.Before.GetPrivateDirty()>>10, h.After.GetPrivateDirty()>>10)
}

// measure asks what each process holds.
func (c Config) measure(ctx context.Context, which string) (*testpb.GaugeRequestStatus, error) {
	ctx, cancel := context.WithTimeout(ctx, c.Leaks+4*c.Patience)
	defer cancel()
	return gauge.Measure(ctx, c.Client, fmt.Sprintf("%s-%d-%s", c.Bus.Name, c.First, which), c.Leaks)
}

// settle measures until nothing is held that was not before: what a process gives back it gives back late, and later on a busy machine. What it
// holds at the deadline it does not give back.
func settle(before *testpb.GaugeRequestStatus, deadline time.Time, measure func(again int) (*testpb.GaugeRequestStatus, error)) ([]Held, error) {
	for again := 0; ; again++ {
		after, err := measure(again)
		if err != nil {
			return nil, err
		}
		all, err := held(before, after)
		if err == nil || len(all) == 0 || time.Now().After(deadline) {
			return all, err
		}
	}
}

// held compares two measurements. It fails without a result if one of the processes is another one, and with it if block-events has more files open
// or more memory, or if PID 1, which opens readers, has more files open.
func held(before, after *testpb.GaugeRequestStatus) ([]Held, error) {
	var all []Held
	for _, name := range []string{"block-events", "engine", "runtime"} {
		h := Held{name, process(before, name), process(after, name)}
		if h.Before.GetPid() == 0 || h.Before.GetPid() != h.After.GetPid() || h.Before.GetDescriptors() == 0 {
			return nil, fmt.Errorf("%s: was {%v}, is {%v}; want the same process", name, h.Before, h.After)
		}
		all = append(all, h)
	}
	for _, h := range all[:2] {
		if h.After.GetDescriptors() != h.Before.GetDescriptors() {
			return all, fmt.Errorf("%v; want no descriptor more or less", h)
		}
	}
	if h := all[0]; h.After.GetPrivateDirty() > h.Before.GetPrivateDirty()+breath {
		return all, fmt.Errorf("%v; want no more memory", h)
	}
	return all, nil
}

func process(measured *testpb.GaugeRequestStatus, name string) *testpb.GaugeRequestStatus_Process {
	for _, p := range measured.GetProcesses() {
		if p.GetName() == name {
			return p
		}
	}
	return nil
}
