package kills

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"

	"github.com/cosi-os/cosi/api/layout/gpt"
	"github.com/cosi-os/cosi/hack/bootable"
)

// Upgrading is the record of a disk whose node went from one version to another.
type Upgrading struct {
	record
	firmware bootable.Firmware
	versions []bootable.Version // that before, that after, and one that was there and goes
	boot     []span             // those that write to what is booted
	state    []span
}

// Part of a disk that an upgrade writes to.
type Part string

const (
	ESP   Part = "the EFI system partition"
	Slot  Part = "the slot"
	State Part = "the state"
)

// span are the entries that a flush ends, those with the numbers from+1 to to.
type span struct {
	from, to int
	part     Part // that they write to
}

// ReadUpgrading reads the log of a disk of size bytes, which was written since it held what the file before does. After begun entries the version that
// it booted then was upgraded to another one, in place of an older one if there was any.
func ReadUpgrading(before string, size int64, log *os.File, begun int, firmware bootable.Firmware, to bootable.Version, older ...bootable.Version) (*Upgrading, error) {
	r, err := readRecord(before, size, log)
	if err != nil {
		return nil, err
	}
	u := &Upgrading{record: r, firmware: firmware}
	image, err := os.Open(before)
	if err != nil {
		return nil, err
	}
	defer image.Close()
	if err := u.read(image, begun, to, older); err != nil {
		return nil, fmt.Errorf("%s: %w", before, err)
	}
	return u, nil
}

// read reads the image.
func (u *Upgrading) read(image *os.File, begun int, to bootable.Version, older []bootable.Version) error {
	info, err := image.Stat()
	if err != nil {
		return err
	}
	disk, err := bootable.Open(image, info.Size())
	if err != nil {
		return err
	}
	from, err := disk.Installed()
	if err != nil {
		return err
	}
	table, err := gpt.Read(image, info.Size())
	if err != nil {
		return err
	}
	u.versions = append([]bootable.Version{from, to}, older...)
	u.divide(begun, table.Partitions)
	if len(u.boot) == 0 || len(u.state) == 0 {
		return fmt.Errorf("after entry %d of %d, %d flushes for what is booted and %d for the state: no upgrade", begun, len(u.log.Entries), len(u.boot), len(u.state))
	}
	return nil
}

// divide finds the spans.
func (u *Upgrading) divide(begun int, partitions []gpt.Partition) {
	for _, p := range partitions {
		u.log.Sectored = max(u.log.Sectored, p.End) // behind them is the state
	}
	from := begun
	for _, to := range u.log.Flushes(begun) {
		s := span{from, to, State}
		for _, e := range u.log.Entries[from:to] {
			for _, p := range partitions {
				switch {
				case e.Length == 0 || e.Offset < p.Start || e.Offset >= p.End:
				case p.Name == "esp":
					s.part = ESP
				case s.part == State:
					s.part = Slot
				}
			}
		}
		if from = to; s.part == State {
			u.state = append(u.state, s)
		} else {
			u.boot = append(u.boot, s)
		}
	}
}

// Moment is one in an upgrade at which the power is lost.
type Moment struct {
	Point
	Seed uint64 // of what is left
	Part Part   // that is written to then
}

func (m Moment) String() string {
	return fmt.Sprintf("while it writes to %s, %v (seed %d)", m.Part, m.Point, m.Seed)
}

// Moment returns that of a round. Of four rounds one loses the power while the node writes to its state, the others go through all that is written to
// the EFI system partition and the slot, again and again.
func (u *Upgrading) Moment(seed uint64, round int) Moment {
	random := rand.New(rand.NewPCG(seed, uint64(round)))
	var s span
	if quarter := round / 4; round%4 == 3 {
		s = u.state[random.IntN(len(u.state))]
	} else {
		order := rand.New(rand.NewPCG(seed, 0)).Perm(len(u.boot))
		s = u.boot[order[(round-quarter)%len(order)]]
	}
	n := s.from + 1 + random.IntN(s.to-s.from)
	return Moment{Point{n, n < s.to}, random.Uint64(), s.part}
}

// Judge makes the disk as it was at a moment, in a file, and returns what it boots next. It fails if that is neither of the versions, or not whole.
func (u *Upgrading) Judge(ctx context.Context, m Moment, path string) (next bootable.Next, err error) {
	if err := u.disk(m.Seed, m.Point, path); err != nil {
		return next, err
	}
	file, err := os.Open(path)
	if err != nil {
		return next, err
	}
	defer file.Close()
	disk, err := bootable.Open(file, u.size)
	if err != nil {
		return next, err
	}
	if err := disk.Check(ctx); err != nil {
		return next, err
	}
	if next, err = disk.Next(u.firmware, u.versions...); err == nil && !slices.ContainsFunc(u.versions[:2], next.Version.Is) {
		err = fmt.Errorf("version %s is booted, which the upgrade replaces", next.Version.Name)
	}
	return next, err
}
