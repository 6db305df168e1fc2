package kills

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/cosi-os/cosi/hack/bootable"
	"github.com/cosi-os/cosi/tools/qemu/node"
)

// atOnce is how many nodes boot at the same time.
const atOnce = 2

// UpgradeCuts records the upgrade of a node to the second of two versions, in place of the first, which is an older one to go back to. Each round loses
// the power at one moment of it: what is left must boot the version that ran before or the new one, whole, and have all that was acknowledged. The
// first half of all rounds is under UEFI, the other under a BIOS. So many as first says have been done before, with other records.
func (m *Machine) UpgradeCuts(ctx context.Context, u Upgrades, seed uint64, first, rounds int) (report Report) {
	if err := errors.Join(m.allowUpgrades(), m.addOlder(u.Versions[0])); err != nil {
		return m.failed(report, err)
	}
	half := (first + rounds) / 2
	for _, part := range []struct {
		boot     node.Boot
		from, to int
	}{{node.UEFI, first, half}, {node.BIOS, max(first, half), first + rounds}} {
		if part.from >= part.to || len(report.Failures) > 0 || ctx.Err() != nil {
			continue
		}
		m.Boot = part.boot
		r, err := m.recordUpgrade(ctx, u, seed)
		if err == nil {
			report.Writes += r.acked
			err = r.rounds(ctx, seed, part.from, part.to, &report.Done)
			r.Close()
		}
		if err != nil && ctx.Err() == nil {
			return m.failed(report, fmt.Errorf("seed %d, %s: %w", seed, part.boot, err))
		}
	}
	return report
}

// addOlder makes an image of its own with an older version in the slot that is upgraded.
func (m *Machine) addOlder(file string) error {
	older, err := bootable.ReadUpgrade(file)
	if err != nil {
		return err
	}
	image := filepath.Join(m.Dir, "image.raw")
	if err := copyDisk(m.Image, image); err != nil {
		return err
	}
	m.Image = image
	disk, err := os.OpenFile(image, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer disk.Close()
	info, err := disk.Stat()
	if err != nil {
		return err
	}
	return older.Add(disk, info.Size())
}

func (m *Machine) failed(report Report, err error) Report {
	fmt.Fprintln(m.Log, err)
	report.Failures = append(report.Failures, err.Error())
	return report
}

// upgradeRecording is a recording of an upgrade.
type upgradeRecording struct {
	*Recording
	upgrading *Upgrading
}

// recordUpgrade boots a fresh disk, has clients write to the node for a while, and upgrades it. It pulls the plug when the new version is good.
func (m *Machine) recordUpgrade(ctx context.Context, u Upgrades, seed uint64) (*upgradeRecording, error) {
	began := time.Now()
	older, wrong := bootable.ReadUpgrade(u.Versions[0])
	to, err := bootable.ReadUpgrade(u.Versions[1])
	if err := errors.Join(wrong, err); err != nil {
		return nil, err
	}
	r, err := m.recordLife(func(r *Recording) error { return r.upgrade(ctx, u, u.Versions[1], rand.New(rand.NewPCG(seed, 0))) })
	if err != nil {
		return nil, err
	}
	firmware := bootable.Firmware(strings.ToUpper(string(m.Boot)))
	upgrading, err := ReadUpgrading(m.Image, diskSize, r.file, r.begun, firmware, to, older)
	if err != nil {
		r.Close()
		return nil, err
	}
	fmt.Fprintf(m.Log, "%s: %d writes acknowledged and an upgrade recorded in %v; it flushed what is booted %d times\n", firmware, r.acked, time.Since(began).Round(time.Second), len(upgrading.boot))
	return &upgradeRecording{r, upgrading}, nil
}

// upgrade is the node's life.
func (r *Recording) upgrade(ctx context.Context, u Upgrades, version string, random *rand.Rand) error {
	victim, err := r.machine.start()
	if err != nil {
		return err
	}
	defer victim.Kill()
	n := victim.(*running)
	for _, typ := range types {
		for w := range writersOfType {
			r.writers = append(r.writers, newWriter("config", typ, w))
			r.writers[len(r.writers)-1].ledger = &ledger{log: r.file}
		}
	}
	clients := run{Config: r.machine.Config(), writers: r.writers}
	if err := clients.writeFor(ctx, n, random); err != nil {
		return err
	}
	for _, w := range r.writers {
		r.acked += w.acknowledged
	}
	if r.begun, err = r.count(); err != nil {
		return err
	}
	if err := u.push(ctx, n, version); err != nil {
		return fmt.Errorf("%w; the console's last lines:\n%s", err, n.Console.Tail(60))
	}
	return nil
}

// rounds does those from one on up to another, a few at once, and counts them.
func (r *upgradeRecording) rounds(ctx context.Context, seed uint64, from, to int, done *int) error {
	for from < to && ctx.Err() == nil {
		n := min(atOnce, to-from)
		wrong := make([]error, n)
		var booting sync.WaitGroup
		for i := range n {
			booting.Go(func() { wrong[i] = r.round(ctx, seed, from+i) })
		}
		booting.Wait()
		if err := errors.Join(wrong...); err != nil {
			return err
		}
		*done, from = *done+n, from+n
	}
	return nil
}

// round loses the power at a moment, looks at what is left, boots it, and compares.
func (r *upgradeRecording) round(ctx context.Context, seed uint64, n int) error {
	m := *r.machine
	m.Dir = filepath.Join(r.machine.Dir, fmt.Sprint("round-", n))
	if err := os.Mkdir(m.Dir, 0o700); err != nil {
		return err
	}
	moment := r.upgrading.Moment(seed, n)
	next, err := r.upgrading.Judge(ctx, moment, m.disk())
	if err == nil {
		err = r.boot(ctx, &m, moment.Point, next)
	}
	if err != nil {
		return fmt.Errorf("round %d, power lost %v: %w", n, moment, err)
	}
	fmt.Fprintf(m.Log, "round %d: %s boots from %s, %s; the power was lost %v\n", n, next.Version.Name, next.Slot, next.State, moment)
	return os.RemoveAll(m.Dir)
}

// partitions are those with a root, by their number on the disk.
var partitions = map[string]string{"3": "root-a", "4": "root-b"}

// runsFrom is what PID 1 says, with the number of the partition.
var runsFrom = regexp.MustCompile(`engine: COSI \S+ .*?from /dev/vda(\d)`)

// boot boots the disk, which must run what it is expected to, and compares.
func (r *upgradeRecording) boot(ctx context.Context, m *Machine, p Point, expected bootable.Next) error {
	ctx, cancel := context.WithTimeout(ctx, m.Config().Patience)
	defer cancel()
	var n *running
	if err := r.compare(ctx, p, func() (Victim, error) {
		victim, err := m.start()
		if err == nil {
			n = victim.(*running)
		}
		return victim, err
	}); err != nil {
		return fmt.Errorf("%s: %w", expected.Slot, err)
	}
	said, err := n.Console.Wait(ctx, 0, runsFrom)
	if err == nil && partitions[said[1]] != expected.Slot {
		err = fmt.Errorf("%q; want %s", said[0], expected.Slot)
	}
	return err
}
