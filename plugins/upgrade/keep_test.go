package upgrade

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"github.com/cosi-os/cosi/api/layout/bootentry"
	"github.com/cosi-os/cosi/api/layout/fat"
	"github.com/cosi-os/cosi/api/layout/gpt"
	"github.com/cosi-os/cosi/api/layout/layouttest"
	"github.com/cosi-os/cosi/api/layout/verity"
)

// Partitions of a disk that a version before was installed on, behind those of the image.
var (
	addedPart  = gpt.Partition{Type: gpt.GUID{1}, GUID: gpt.GUID{2}, Name: "added", Start: 40 * mib, End: 41 * mib}
	statePart  = gpt.Partition{Type: gpt.State, GUID: gpt.GUID{3}, Name: "state", Attributes: 1 << 60, Start: 41 * mib, End: 46 * mib}
	behindPart = gpt.Partition{Type: gpt.GUID{1}, GUID: gpt.GUID{4}, Name: "behind", Start: 46 * mib, End: 47 * mib}
)

// first is a disk that version 0.9.0 was installed on, once for all tests. Nobody changes it.
var (
	first     []byte
	firstOnce sync.Once
)

// former is a disk that another version was installed on, with partitions behind those of the image, and something in all of them.
func former(t *testing.T, added ...gpt.Partition) []byte {
	t.Helper()
	firstOnce.Do(func() {
		file, digest, _ := installable(t, newImage(t, "0.9.0"))
		d := emptyDisk()
		if err := onto(d).run(file, terms{policy: anyOne, digest: digest}); err != nil {
			t.Fatal(err)
		}
		first = d.Data
	})
	data := bytes.Clone(first)
	addTo(t, data, added...)
	for _, p := range added {
		for at := p.Start; at < p.End; at += 512 {
			copy(data[at:], "of "+p.Name)
		}
	}
	return data
}

// addTo adds partitions to the table of a disk.
func addTo(t *testing.T, data []byte, added ...gpt.Partition) {
	t.Helper()
	table, err := gpt.Read(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	table.Partitions = append(table.Partitions, added...)
	if err := table.Write(&layouttest.Memory{Data: data}, int64(len(data))); err != nil {
		t.Fatal(err)
	}
}

// keeps is an installer that keeps the state of the disks.
func keeps(disks ...*whole) *installer {
	by := onto(disks...)
	by.keepState = true
	return by
}

func TestTheStateIsKept(t *testing.T) {
	i, file, digest, raw := oneImage(t)
	data := former(t, addedPart, statePart, behindPart)
	d := newWhole(bytes.Clone(data))
	by := keeps(d)
	by.userData = "metadata: {}\n"
	if err := by.run(file, terms{policy: anyOne, digest: digest}); err != nil {
		t.Fatal(err)
	}
	hasUserData(t, d.Data, by.userData)
	if !bytes.Equal(d.Data[statePart.Start:behindPart.End], data[statePart.Start:behindPart.End]) {
		t.Error("what is kept was written to")
	}
	if !bytes.Equal(d.Data[addedPart.Start:addedPart.End], data[addedPart.Start:addedPart.End]) {
		t.Error("a byte that nobody uses was written")
	}
	// The file system with the user data is another than the image builder makes.
	by = keeps(d)
	by.fingerprint = fingerprintOf(t, d.Data)
	if err := by.run(file, terms{policy: anyOne, digest: digest}); err != nil {
		t.Fatal(err)
	}
	asMade(t, d.Data, raw, i, statePart, behindPart)
}

func fingerprintOf(t *testing.T, data []byte) string {
	t.Helper()
	holds, err := inspect(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	return holds.fingerprint
}

// Wherever power is lost, the state is as it was, and the partition table names it; what could be booted is the version before or the new one, whole;
// and another installation that keeps it goes on, while one that does not is refused.
func TestEveryCutOfAnInstallationThatKeepsTheState(t *testing.T) {
	i, file, digest, raw := oneImage(t)
	for name, damage := range map[string]func(data []byte){
		"a whole table":         func([]byte) {},
		"the table is damaged":  func(data []byte) { data[600] ^= 1 },
		"its copy is not there": func(data []byte) { clear(data[targetSize-mib:]) },
		"the disk has grown": func(data []byte) {
			table, err := gpt.Read(bytes.NewReader(data), targetSize)
			clear(data[targetSize-mib:])
			if err := errors.Join(err, table.Write(&layouttest.Memory{Data: data}, targetSize-mib)); err != nil {
				t.Fatal(err)
			}
		},
	} {
		before := former(t, addedPart, statePart)
		damage(before)
		d := newWhole(bytes.Clone(before))
		d.recorder = &layouttest.Recorder{}
		if err := keeps(d).run(file, terms{policy: anyOne, digest: digest}); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		seed := rand.Uint64()
		states, cuts := map[string]int{}, 0
		for data := range d.recorder.Cuts(before, rand.New(rand.NewPCG(seed, 0)), tries) {
			cuts++
			state := stateAfterCut(t, data, before, raw)
			states[state]++
			if state == "" {
				t.Fatalf("%s: seed %d, cut %d: half of it could be booted, or the state is gone", name, seed, cuts)
			}
			if err := onto(newWhole(data)).run(file, terms{policy: anyOne, digest: digest}); !errors.Is(err, errRefused) ||
				strings.Contains(err.Error(), "holds a state partition that an installation keeps, which was cut off, ") != (state == "begun") {
				t.Fatalf("%s: seed %d, cut %d, %s: an installation that keeps nothing: %v", name, seed, cuts, state, err)
			}
			by := keeps(newWhole(data))
			if state == "whole" {
				by.fingerprint = fingerprintOf(t, data)
			}
			if err := by.run(file, terms{policy: anyOne, digest: digest}); err != nil {
				t.Fatalf("%s: seed %d, cut %d, %s: again: %v", name, seed, cuts, state, err)
			}
			asMade(t, data, raw, i, statePart)
			if !bytes.Equal(data[statePart.Start:statePart.End], before[statePart.Start:statePart.End]) {
				t.Fatalf("%s: seed %d, cut %d, %s: again: the state is another", name, seed, cuts, state)
			}
		}
		if states["begun"] < 6*tries || states["whole"] == 0 {
			t.Errorf("%s: %d cuts: %v", name, cuts, states)
		}
	}
}

// stateAfterCut says what a disk is after a cut: as it was, begun, whole, or none of it.
func stateAfterCut(t *testing.T, data, before, raw []byte) string {
	t.Helper()
	table, err := gpt.Read(bytes.NewReader(data), targetSize)
	if err != nil || !bytes.Equal(data[statePart.Start:statePart.End], before[statePart.Start:statePart.End]) {
		t.Error(err)
		return ""
	}
	named, esp := false, false
	for _, p := range table.Partitions {
		named, esp = named || p == statePart, esp || p.Name == espName
	}
	end := len(raw) - mib
	same := func(other []byte) bool { return bytes.Equal(data[mib:end], other[mib:end]) }
	switch {
	case !named, esp && !same(before) && !same(raw): // some firmware may not mind the first sector
		return ""
	case bytes.Equal(data, before):
		return "as it was"
	case data[510] != 0x55 && bytes.HasPrefix(data, []byte(keeping)):
		return "begun"
	case data[510] == 0x55 && same(raw) && !table.Backup && len(table.Partitions) == 5:
		return "whole"
	}
	return ""
}

func TestWhatIsNotKept(t *testing.T) {
	_, file, digest, _ := oneImage(t)
	named := func(name string, start int64) gpt.Partition {
		return gpt.Partition{Type: gpt.State, GUID: gpt.GUID{9}, Name: name, Start: start, End: start + 2*mib}
	}
	begunDisk := make([]byte, targetSize)
	copy(begunDisk, begun)
	// A version whose partitions take less, and a state behind them.
	early := make([]byte, targetSize)
	if err := (&gpt.Table{Partitions: []gpt.Partition{named("state", 39*mib)}}).Write(&layouttest.Memory{Data: early}, targetSize); err != nil {
		t.Fatal(err)
	}
	cut := former(t, statePart)
	clear(cut[:34*512])
	clear(cut[targetSize-mib:])
	for name, test := range map[string]struct {
		data []byte
		want string
	}{
		"nothing":         {make([]byte, targetSize), "/dev/vda (48.0 MiB) has no state that could be kept, and no whole partition table: it holds nothing"},
		"begun":           {begunDisk, "no whole partition table: it holds nothing"},
		"no table":        {cut, "no whole partition table: it holds data"},
		"no state":        {former(t), `has no state that could be kept: it holds COSI 0.9.0, a partition table with 4 partitions ("bios-boot", "esp", "root-a", "root-b")`},
		"a new one":       {former(t, named(newState, 41*mib)), `has no state that could be kept: it holds COSI 0.9.0, a partition table with 5 partitions`},
		"two":             {former(t, named("state", 40*mib), named("state", 42*mib)), "has 2 state partitions, and one could be kept"},
		"one in the way":  {early, "the partitions of version 1.0.0 end at 40.0 MiB, and the state partition of /dev/vda (48.0 MiB) begins at 39.0 MiB: it would be overwritten"},
		"another content": {former(t, statePart), "and not the one that is quoted"},
	} {
		d := newWhole(bytes.Clone(test.data))
		by := keeps(d)
		if name == "another content" {
			by.fingerprint = strings.Repeat("0", 32)
		}
		if err := by.run(file, terms{policy: anyOne, digest: digest}); !errors.Is(err, errRefused) || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v; want %q", name, err, test.want)
		}
		if !bytes.Equal(d.Data, test.data) {
			t.Errorf("%s: it was written to", name)
		}
		if d.open {
			t.Errorf("%s: the disk is still open", name)
		}
	}
}

// A node that is booted from its medium again and again installs a version once, but for one that is damaged.
func TestAVersionThatIsThere(t *testing.T) {
	i, file, digest, raw := oneImage(t)
	d := newWhole(former(t, statePart))
	if err := keeps(d).run(file, terms{policy: anyOne, digest: digest}); err != nil {
		t.Fatal(err)
	}
	there := bytes.Clone(d.Data)
	err := keeps(d).run(file, terms{policy: anyOne, digest: digest})
	if !errors.Is(err, errRefused) || !strings.HasSuffix(err.Error(), "/dev/vda (48.0 MiB) has version 1.0.0 already, whole, beside its state; to have it installed again, quote fingerprint: "+fingerprintOf(t, there)) {
		t.Errorf("again: %v", err)
	}
	if err := onto(d).run(file, terms{policy: anyOne, digest: digest}); !errors.Is(err, errRefused) || !strings.Contains(err.Error(), "; to keep its state, say keep_state; to lose all of it, quote fingerprint: ") {
		t.Errorf("without its state: %v", err)
	}
	if !bytes.Equal(d.Data, there) {
		t.Error("what is refused was written to")
	}
	for name, damage := range map[string]func(data []byte){
		"no firmware boots it": func(data []byte) { data[510] = 0 },
		"the table":            func(data []byte) { data[600] ^= 1 },
		"the root":             func(data []byte) { data[38*mib+int(i.data)-1] ^= 1 },
		"the kernel":           func(data []byte) { data[bytes.Index(data, []byte(i.kernel))+len(i.kernel)-1] ^= 1 },
		"no file system":       func(data []byte) { clear(data[2*mib:][:512]) },
		"its entry is bad": func(data []byte) {
			on := &disk{firmware: bios, Memory: &layouttest.Memory{Data: data[2*mib:]}, open: map[string]bool{}}
			trial := on.machine(i, "root-a")
			if err := trial.withESP(func(system *fat.FS) error {
				return setEnv(system, bootentry.Env{Good: verity.Hash{1}, Trial: i.root}) // no try is left
			}); err != nil {
				t.Fatal(err)
			}
		},
	} {
		d := newWhole(bytes.Clone(there))
		damage(d.Data)
		if err := keeps(d).run(file, terms{policy: anyOne, digest: digest}); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		asMade(t, d.Data, raw, i, statePart)
	}
}
