package vmtest_test

import (
	"math/rand/v2"
	"testing"

	"github.com/cosi-os/cosi/hack/soak/kills"
	"github.com/cosi-os/cosi/hack/vmtest"
)

// machine returns a node that is killed without warning.
func machine(t *testing.T) *kills.Machine {
	t.Helper()
	host := vmtest.Host(t)
	if testing.Short() {
		t.Skip("boots a VM")
	}
	m, err := kills.NewMachine(host, vmtest.Image(t, "base", "raw"), t.TempDir(), t.Output())
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// TestThePlugIsPulled: in the first boot, and then in the middle of writes. "make soak WHAT=plug" does it more often.
func TestThePlugIsPulled(t *testing.T) {
	vmtest.Parallel(t, 70)
	c := machine(t).Config()
	c.Seed, c.Rounds, c.OftenUnready = rand.Uint64(), 4, 1000
	report := kills.Run(t.Context(), c)
	t.Logf("seed %d: %d rounds, %d writes acknowledged, %d unknown, %d events", c.Seed, report.Done, report.Writes, report.Unknown, report.Events)
	if report.Done != c.Rounds || report.Writes == 0 || report.Events == 0 {
		t.Errorf("seed %d: %+v", c.Seed, report)
	}
}

// TestAFirstBootThatIsCutOff: the next one makes the state partition whole. "make soak WHAT=first-boot" does it more often.
func TestAFirstBootThatIsCutOff(t *testing.T) {
	vmtest.Parallel(t, 90)
	const rounds = 3
	seed := rand.Uint64()
	if report := machine(t).FirstBoots(t.Context(), seed, 0, rounds); report.Done != rounds {
		t.Errorf("seed %d: %+v", seed, report)
	}
}
