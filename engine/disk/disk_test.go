package disk

import (
	"errors"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cosi-os/cosi/api/layout/gpt"
	"github.com/cosi-os/cosi/api/layout/layouttest"
	"github.com/cosi-os/cosi/engine/wire"
)

const gib = 1 << 30

// image is the table of an image, 771 MiB, on a disk of some size.
func image() *gpt.Table {
	t := &gpt.Table{DiskGUID: gpt.GUID{1}}
	for i, end := range []int64{2, 258, 514, 770} {
		start := map[int]int64{0: 1, 1: 2, 2: 258, 3: 514}[i]
		t.Partitions = append(t.Partitions, gpt.Partition{Type: gpt.GUID{9, byte(i)}, GUID: gpt.GUID{2, byte(i)}, Name: "x", Start: start * mib, End: end * mib})
	}
	return t
}

func fixed() gpt.GUID { return gpt.GUID{7} }

func TestArrange(t *testing.T) {
	state := func(start, end int64, name string) gpt.Partition {
		return gpt.Partition{Type: gpt.State, GUID: fixed(), Name: name, Start: start * mib, End: end * mib}
	}
	for name, c := range map[string]struct {
		size    int64
		there   []gpt.Partition
		want    gpt.Partition // zero: none
		changed bool
		most    string
	}{
		"first boot":                 {4 * gib, nil, state(770, 4095, nameNew), true, ""},
		"a disk as the image is":     {771 * mib, nil, gpt.Partition{}, false, ""},
		"a little too small":         {834 * mib, nil, gpt.Partition{}, false, ""},
		"just enough":                {835 * mib, nil, state(770, 834, nameNew), true, ""},
		"later boot":                 {4 * gib, []gpt.Partition{state(770, 4095, nameState)}, state(770, 4095, nameState), false, ""},
		"larger disk":                {8 * gib, []gpt.Partition{state(770, 4095, nameState)}, state(770, 8191, nameState), true, ""},
		"not formatted":              {4 * gib, []gpt.Partition{state(770, 4095, nameNew)}, state(770, 4095, nameNew), false, ""},
		"as much as the image wants": {4 * gib, nil, state(770, 1794, nameNew), true, "1024"},
		"less than can be":           {4 * gib, nil, state(770, 834, nameNew), true, "1"},
		"more than there is":         {4 * gib, nil, state(770, 4095, nameNew), true, "1048576"},
		"not a size":                 {4 * gib, nil, state(770, 4095, nameNew), true, "1GiB"},
		"a larger disk, not wanted":  {8 * gib, []gpt.Partition{state(770, 1794, nameState)}, state(770, 1794, nameState), false, "1024"},
		"a smaller one is wanted":    {4 * gib, []gpt.Partition{state(770, 4095, nameState)}, state(770, 4095, nameState), false, "1024"},
		"a larger one is wanted":     {4 * gib, []gpt.Partition{state(770, 1794, nameState)}, state(770, 2818, nameState), true, "2048"},
		"somebody stands behind":     {8 * gib, []gpt.Partition{state(770, 2000, nameState), {Type: gpt.GUID{8}, GUID: gpt.GUID{8}, Start: 3 * gib, End: 4 * gib}}, state(770, 2000, nameState), false, ""},
		"behind one of the image's":  {4 * gib, []gpt.Partition{{Type: gpt.GUID{8}, GUID: gpt.GUID{8}, Name: "data", Start: 770 * mib, End: 2 * gib}}, state(2048, 4095, nameNew), true, ""},
		"smaller than it could be":   {4 * gib, []gpt.Partition{state(770, 2000, nameState)}, state(770, 4095, nameState), true, ""},
	} {
		table := image()
		table.Partitions = append(table.Partitions, c.there...)
		most := (&Preparer{Size: c.most, Log: t.Logf}).most()
		index, changed, err := arrange(table, c.size, most, fixed)
		if c.want == (gpt.Partition{}) {
			var why *problem
			if !errors.As(err, &why) || why.reason != noSpace || changed {
				t.Errorf("%s: %v, changed %v; want NoSpace", name, err, changed)
			}
			continue
		}
		if err != nil || changed != c.changed || table.Partitions[index] != c.want {
			t.Errorf("%s: %+v, changed %v, %v; want %+v, %v", name, table.Partitions[max(index, 0)], changed, err, c.want, c.changed)
			continue
		}
		if _, again, err := arrange(table, c.size, most, fixed); again || err != nil {
			t.Errorf("%s: arranged twice, it changes again (%v)", name, err)
		}
	}
}

func TestATableThatIsNotWholeIsWrittenAgain(t *testing.T) {
	table := image()
	table.Partitions = append(table.Partitions, gpt.Partition{Type: gpt.State, GUID: fixed(), Name: nameState, Start: 770 * mib, End: 4095 * mib})
	table.Backup = true
	if _, changed, err := arrange(table, 4*gib, math.MaxInt64, fixed); !changed || err != nil {
		t.Errorf("read from the copy: changed %v, %v", changed, err)
	}
}

// TestEachCutOfTheFirstBootIsFinishedByTheNext: whatever part of the table was written, the next boot comes to the same table.
func TestEachCutOfTheFirstBootIsFinishedByTheNext(t *testing.T) {
	const size = 900 * mib
	before := make([]byte, 2*mib) // what the tables take at the beginning; the rest is mapped to the end
	disk := &layouttest.Memory{Data: before}
	folded := fold{disk, size}
	if err := image().Write(folded, size); err != nil {
		t.Fatal(err)
	}
	recorder := &layouttest.Recorder{}
	table := image()
	if _, _, err := arrange(table, size, math.MaxInt64, fixed); err != nil {
		t.Fatal(err)
	}
	if err := table.Write(fold{recorder, size}, size); err != nil {
		t.Fatal(err)
	}
	seed := rand.Uint64()
	cuts := 0
	for data := range recorder.Cuts(before, rand.New(rand.NewPCG(seed, 0)), 60) {
		cuts++
		cut := fold{&layouttest.Memory{Data: data}, size}
		found, err := gpt.Read(cut, size)
		if err != nil {
			t.Fatalf("seed %d, cut %d: %v", seed, cuts, err)
		}
		index, changed, err := arrange(found, size, math.MaxInt64, fixed)
		if err != nil || index != 4 || found.Partitions[4].Name != nameNew {
			t.Fatalf("seed %d, cut %d: index %d, %v", seed, cuts, index, err)
		}
		if changed {
			if err := found.Write(cut, size); err != nil {
				t.Fatal(err)
			}
		}
		again, err := gpt.Read(cut, size)
		if err != nil || again.Backup || again.Moved || len(again.Partitions) != 5 || again.Partitions[4] != table.Partitions[4] {
			t.Fatalf("seed %d, cut %d: finished, the table is %+v, %v", seed, cuts, again, err)
		}
	}
	if cuts < 100 {
		t.Errorf("%d cuts only", cuts)
	}
}

// fold keeps the first and the last MiB of a disk, which is all that holds a table, in a small one.
type fold struct {
	gpt.Disk
	size int64
}

func (f fold) at(off int64) int64 {
	if off >= mib {
		return off - f.size + 2*mib
	}
	return off
}

func (f fold) WriteAt(p []byte, off int64) (int, error) { return f.Disk.WriteAt(p, f.at(off)) }

func (f fold) ReadAt(p []byte, off int64) (int, error) {
	return f.Disk.(*layouttest.Memory).ReadAt(p, f.at(off))
}

func TestPrepareSaysWhyThereIsNoState(t *testing.T) {
	hash := strings.Repeat("0", 64)
	for name, c := range map[string]struct{ partition, hash, want string }{
		"the root is in memory":        {"", "", noBootDisk},
		"arguments that make no sense": {"/dev/none3", "bogus", otherError},
		"no disk":                      {"/dev/none3", hash, noBootDisk},
	} {
		p := &Preparer{Partition: c.partition, Hash: c.hash, Options: "hash-offset=8192", Now: time.Now, Log: t.Logf}
		if s := p.Prepare(); s.Dir != "" || s.Reason != c.want || s.Message == "" {
			t.Errorf("%s: %+v; want %s", name, s, c.want)
		}
	}
	if why := because(wire.StorageDamaged, "x %w", os.ErrInvalid); !errors.Is(why, os.ErrInvalid) {
		t.Error("the error within a problem is lost")
	}
}

func TestPartitionNode(t *testing.T) {
	for disk, want := range map[string]string{"/dev/vda": "/dev/vda5", "/dev/nvme0n1": "/dev/nvme0n1p5", "/dev/mmcblk0": "/dev/mmcblk0p5", "/dev/sdaa": "/dev/sdaa5"} {
		if got := partitionNode(disk, 5); got != want {
			t.Errorf("partitionNode(%q, 5) = %q; want %q", disk, got, want)
		}
	}
}

func TestTheClockIsKept(t *testing.T) {
	dir := t.TempDir()
	if got := ReadClock(dir); !got.IsZero() {
		t.Errorf("ReadClock of an empty directory = %v", got)
	}
	for _, now := range []time.Time{time.Unix(1_700_000_000, 5), time.Unix(1_800_000_000, 0)} {
		if err := WriteClock(dir, now); err != nil {
			t.Fatal(err)
		}
		if got := ReadClock(dir); !got.Equal(now.Truncate(time.Second)) {
			t.Errorf("ReadClock = %v; want %v", got, now)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, clockFile), []byte("202"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := ReadClock(dir); !got.IsZero() {
		t.Errorf("ReadClock of a file cut short = %v", got)
	}
}
