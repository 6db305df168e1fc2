package vmtest_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/cosi-os/cosi/hack/blklog"
	"github.com/cosi-os/cosi/hack/bootable"
	"github.com/cosi-os/cosi/hack/soak/kills"
	"github.com/cosi-os/cosi/hack/vmtest"
)

// upgradedDisk is the size of the disk of a node that is upgraded.
const upgradedDisk = 2 * gib

// diskLog records what is written to it.
type diskLog struct{ *os.File }

func newDiskLog(t *testing.T) diskLog {
	t.Helper()
	file, err := os.Create(filepath.Join(t.TempDir(), "disk.log"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() })
	return diskLog{file}
}

// count is how many entries are in it.
func (l diskLog) count(t *testing.T) int {
	t.Helper()
	n, err := blklog.Count(l)
	if err != nil {
		t.Fatal(err)
	}
	return int(n)
}

// cutRounds is how often the power is lost, the last time while something is written that is booted.
const cutRounds = 15

// cuts makes the node's disk again as a loss of power might have left it in the upgrade, again and again: it must boot one of the two versions,
// whole. The last is booted. "make soak WHAT=upgrade-cut" boots all.
func (u *upgrading) cuts(t *testing.T, options vmtest.Options, log diskLog, begun int, file string) {
	t.Helper()
	to, err := bootable.ReadUpgrade(file)
	if err != nil {
		t.Fatal(err)
	}
	r, err := kills.ReadUpgrading(vmtest.Image(t, "base", "raw"), upgradedDisk, log.File, begun, bootable.Firmware(u.firmware), to)
	if err != nil {
		t.Fatal(err)
	}
	seed := rand.Uint64()
	options.File, options.Log = filepath.Join(t.TempDir(), "cut.raw"), ""
	var next bootable.Next
	for round := range cutRounds {
		moment := r.Moment(seed, round)
		if next, err = r.Judge(t.Context(), moment, options.File); err != nil {
			t.Fatalf("seed %d, round %d, power lost %v: %v", seed, round, moment, err)
		}
		t.Logf("seed %d, round %d: version %s in %s is booted, %s; the power was lost %v", seed, round, next.Version.Name, next.Slot, next.State, moment)
	}
	options.Identity = u.Identity
	n := vmtest.Start(t, options)
	defer n.Kill()
	n.Serves(t)
	n.Expect(t, 0, fmt.Sprintf(`engine: COSI .* from /dev/vda%s, which dm-verity checks`, map[string]string{"root-a": "3", "root-b": "4"}[next.Slot]))
	again := keeper{outside: u.outside, Node: n}
	again.keeps(t)
}
