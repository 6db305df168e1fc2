package upgrade

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/cosi-os/cosi/api/layout/bootentry"
	"github.com/cosi-os/cosi/api/layout/fat"
	"github.com/cosi-os/cosi/api/layout/layouttest"
	"github.com/cosi-os/cosi/api/upgrade"
)

var (
	key    = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{1}, ed25519.SeedSize))
	other  = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{2}, ed25519.SeedSize))
	anyOne = policy{unsigned: true}
	ours   = policy{keys: []ed25519.PublicKey{key.Public().(ed25519.PublicKey)}}
)

func nobody(upgrade.Manifest) {}

// upgradeTo installs an image and places its entry.
func upgradeTo(m *machine, i image, file []byte, digest string) error {
	if err := m.install(bytes.NewReader(file), terms{policy: anyOne, digest: digest}, nobody); err != nil {
		return err
	}
	all, err := m.entries()
	if err != nil {
		return err
	}
	return m.place(bootentry.Entry{Number: all.next(), State: bootentry.Trying, Left: bootentry.Tries, Version: i.version, Root: i.root})
}

func TestAnUpgradeIsInstalled(t *testing.T) {
	for _, firmware := range firmwares {
		t.Run(firmware, func(t *testing.T) { installed(t, firmware) })
	}
}

func installed(t *testing.T, firmware string) {
	a, old, b := newImage(t, "1.0.0"), newImage(t, "0.9.0"), newImage(t, "2.0.0")
	d := newDisk(t, firmware, a, old)
	m := d.machine(a, "root-a")
	if e := d.boots(t, a, old); e.Root != a.root {
		t.Fatalf("before, %s is booted", e.Version)
	}
	file, digest := b.file(t, key)
	if err := upgradeTo(m, b, file, digest); err != nil {
		t.Fatal(err)
	}
	e := d.boots(t, a, b)
	if e.Root != b.root || e.State != bootentry.Trying || e.Left != 3 || e.Number != 3 {
		t.Errorf("booted next: %+v", e)
	}
	all, err := m.entries()
	if err != nil || len(all) != 2 {
		t.Errorf("entries: %v, %v; want those of 2.0.0 and 1.0.0", all, err)
	}
	// Three boots that do not become healthy, and the one before is booted again.
	for range bootentry.Tries {
		if e := d.boots(t, a, b); e.Root != b.root {
			t.Errorf("with tries left, %s is booted", e.Version)
		}
		d.count(t)
	}
	if e := d.boots(t, a, b); e.Root != a.root {
		t.Errorf("without tries left, %s is booted", e.Version)
	}
}

func TestWhatIsRefusedLeavesTheDiskAlone(t *testing.T) {
	a, old, b := newImage(t, "1.0.0"), newImage(t, "0.9.0"), newImage(t, "2.0.0")
	large := newImage(t, "3.0.0")
	large.slot = append(large.slot, make([]byte, slotSize)...)
	for name, test := range map[string]struct {
		policy
		image
		key     ed25519.PrivateKey
		version string
		change  func(*upgrade.Manifest)
		want    string
	}{
		"not signed":          {ours, b, nil, "", nil, "it is not signed, and UpgradePolicies does not allow that"},
		"signed by another":   {ours, b, other, "", nil, "it is signed by none of the 1 keys"},
		"signed by nobody's":  {policy{}, b, other, "", nil, "it is signed by none of the 0 keys"},
		"either, and another": {policy{keys: ours.keys, unsigned: true}, b, other, "", nil, "it is signed by none of the 1 keys"},
		"another machine":     {anyOne, b, nil, "", func(m *upgrade.Manifest) { m.Arch = "vax" }, "it is for vax, and this is "},
		"too far":             {anyOne, b, nil, "", func(m *upgrade.Manifest) { m.Floor = "1.5" }, "it takes a node of version 1.5 at least, and this is 1.0.0"},
		"another version":     {anyOne, b, nil, "2.0.1", nil, "it is version 2.0.0, and 2.0.1 is asked for"},
		"too large":           {anyOne, large, nil, "", nil, "root-b (root-b) has 262144"},
		"the same":            {anyOne, a, nil, "", nil, "the node runs it already"},
	} {
		d := newDisk(t, uefi, a, old)
		before := bytes.Clone(d.Data)
		change := test.change
		if change == nil {
			change = nobody2
		}
		file, digest := test.file(t, test.key, change)
		err := d.machine(a, "root-a").install(bytes.NewReader(file), terms{test.policy, digest, test.version}, nobody)
		if !errors.Is(err, errRefused) || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v; want %q", name, err, test.want)
		}
		if !bytes.Equal(d.Data, before) {
			t.Errorf("%s: the disk has changed", name)
		}
	}
}

func nobody2(*upgrade.Manifest) {}

func TestWhatIsTaken(t *testing.T) {
	a, old, b := newImage(t, "1.0.0"), newImage(t, "0.9.0"), newImage(t, "2.0.0")
	for name, test := range map[string]struct {
		policy
		key ed25519.PrivateKey
	}{
		"signed": {ours, key}, "not signed, which is allowed": {anyOne, nil}, "signed by anybody, where nobody need sign": {anyOne, other},
		"both": {policy{keys: ours.keys, unsigned: true}, key},
	} {
		file, digest := b.file(t, test.key, func(m *upgrade.Manifest) { m.Floor = "1.0" })
		if err := newDisk(t, uefi, a, old).machine(a, "root-a").install(bytes.NewReader(file), terms{test.policy, digest, ""}, nobody); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// What does not arrive as it was is not booted, and a source that fails is told from one that brings the wrong thing.
func TestWhatDoesNotArrive(t *testing.T) {
	a, old, b := newImage(t, "1.0.0"), newImage(t, "0.9.0"), newImage(t, "2.0.0")
	file, digest := b.file(t, nil)
	flip := func(at int) []byte {
		changed := bytes.Clone(file)
		changed[at] ^= 1
		return changed
	}
	failed := errors.New("the network is down")
	for name, test := range map[string]struct {
		source io.Reader
		want   error
	}{
		"another file":         {bytes.NewReader(append(bytes.Clone(file), "more"...)), errBroken},
		"a bit of the root":    {bytes.NewReader(flip(bytes.Index(file, []byte("root of")))), errBroken},
		"a bit of the kernel":  {bytes.NewReader(flip(bytes.Index(file, []byte("kernel of 2.0.0\nkernel")))), errBroken},
		"half of it":           {bytes.NewReader(file[:len(file)/2]), errBroken},
		"nothing of ours":      {strings.NewReader(strings.Repeat("x", 4096)), errBroken},
		"a source that failed": {io.MultiReader(bytes.NewReader(file[:len(file)/2]), iotest.ErrReader(failed)), failed},
	} {
		d := newDisk(t, uefi, a, old)
		m := d.machine(a, "root-a")
		err := m.install(test.source, terms{policy: anyOne, digest: digest}, nobody)
		if !errors.Is(err, test.want) {
			t.Errorf("%s: %v; want %v", name, err, test.want)
		}
		if e := d.boots(t, a, old); e.Root != a.root {
			t.Errorf("%s: %s is booted", name, e.Version)
		}
	}
}

// A slot that does not keep what was written is seen when it is read back.
func TestABadSlotIsSeen(t *testing.T) {
	a, old, b := newImage(t, "1.0.0"), newImage(t, "0.9.0"), newImage(t, "2.0.0")
	for _, at := range []int64{100, b.data + 5000} { // in the image, and in its tree
		d := newDisk(t, uefi, a, old)
		m := d.machine(a, "root-a")
		m.reread = func(node string) (readCloser, error) {
			d.Data[places[node]+at] ^= 1
			return d.part(node)
		}
		file, digest := b.file(t, nil)
		err := m.install(bytes.NewReader(file), terms{policy: anyOne, digest: digest}, nobody)
		if !errors.Is(err, errBroken) || !strings.Contains(err.Error(), "root-b, read back: ") {
			t.Errorf("install = %v", err)
		}
	}
}

// Wherever power is lost, the version before is booted, or the new one, whole; and then the upgrade can be made again.
func TestEveryCutOfAnUpgradeBoots(t *testing.T) {
	for _, firmware := range firmwares {
		t.Run(firmware, func(t *testing.T) { cuts(t, firmware) })
	}
}

func cuts(t *testing.T, firmware string) {
	a, old, b := newImage(t, "1.0.0"), newImage(t, "0.9.0"), newImage(t, "2.0.0")
	file, digest := b.file(t, nil)
	d := newDisk(t, firmware, a, old)
	before := bytes.Clone(d.Data)
	d.recorder = &layouttest.Recorder{}
	m := d.machine(a, "root-a")
	if err := upgradeTo(m, b, file, digest); err != nil {
		t.Fatal(err)
	}
	seed := rand.Uint64()
	var booted []string
	cuts := 0
	for data := range d.recorder.Cuts(before, rand.New(rand.NewPCG(seed, 0)), tries) {
		cuts++
		cut := d.cut(data)
		e := cut.boots(t, a, b, old)
		if e.Root == old.root {
			t.Fatalf("seed %d, cut %d: the version in the slot that is written is booted", seed, cuts)
		}
		if !slices.Contains(booted, e.Version) {
			booted = append(booted, e.Version)
		}
		if e.Root == b.root {
			continue
		}
		if err := upgradeTo(cut.machine(a, "root-a"), b, file, digest); err != nil {
			t.Fatalf("seed %d, cut %d: again: %v", seed, cuts, err)
		}
		if e := cut.boots(t, a, b); e.Root != b.root {
			t.Fatalf("seed %d, cut %d: again, %s is booted", seed, cuts, e.Version)
		}
	}
	if want := []string{"1.0.0", "2.0.0"}; !slices.Equal(booted, want) || cuts < 12*tries {
		t.Errorf("%d cuts, after which %q were booted; want %q", cuts, booted, want)
	}
	t.Logf("%d cuts", cuts)
}

// The blessing, and the way back, by every cut.
func TestEveryCutOfARename(t *testing.T) {
	a, b := newImage(t, "1.0.0"), newImage(t, "2.0.0")
	for _, test := range []struct {
		name, firmware string
		change         func(m *machine, all entries) error
		want           []string // versions and states of what is booted next
	}{
		{"bless", uefi, blessFirst, []string{"2.0.0 Trying", "2.0.0 Good"}},
		{"bless", bios, blessFirst, []string{"2.0.0 Trying", "2.0.0 Good"}},
		{"back", uefi, backToSecond, []string{"2.0.0 Trying", "1.0.0 Trying"}},
		{"back", bios, backToSecond, []string{"2.0.0 Trying", "1.0.0 Trying"}},
	} {
		d := newDisk(t, test.firmware, a, newImage(t, "0.9.0"))
		file, digest := b.file(t, nil)
		if err := upgradeTo(d.machine(a, "root-a"), b, file, digest); err != nil {
			t.Fatal(err)
		}
		d.count(t)
		m := d.machine(b, "root-b")
		all, err := m.entries()
		if err != nil {
			t.Fatal(err)
		}
		before := bytes.Clone(d.Data)
		d.recorder = &layouttest.Recorder{}
		if err := test.change(m, all); err != nil {
			t.Fatal(err)
		}
		var got []string
		for data := range d.recorder.Cuts(before, rand.New(rand.NewPCG(1, 1)), tries) {
			cut := d.cut(data)
			e := cut.boots(t, a, b)
			if is := e.Version + " " + string(e.State); !slices.Contains(got, is) {
				got = append(got, is)
			}
			if test.name != "bless" {
				continue
			}
			// What was cut is made good by the next boot.
			m := cut.machine(b, "root-b")
			all, err := m.entries()
			if mine, ok := all.of(b.root); err == nil && ok && mine.State != bootentry.Good {
				err = m.bless(mine)
			}
			if err != nil {
				t.Fatalf("%s, %s: again: %v", test.name, test.firmware, err)
			}
			if e := cut.boots(t, a, b); e.Root != b.root || e.State != bootentry.Good {
				t.Errorf("%s, %s: again, it boots %+v", test.name, test.firmware, e)
			}
		}
		if !slices.Equal(got, test.want) {
			t.Errorf("%s, %s: booted %q; want %q", test.name, test.firmware, got, test.want)
		}
	}
}

func blessFirst(m *machine, all entries) error { return m.bless(all[0]) }

func backToSecond(m *machine, all entries) error { return m.again(all[1], all.next()) }

// A disk on which GRUB does not know of an entry on trial has none: power was lost while it was made.
func TestGRUBDoesNotKnowOfAnEntry(t *testing.T) {
	a, b := newImage(t, "1.0.0"), newImage(t, "2.0.0")
	d := newDisk(t, bios, a, newImage(t, "0.9.0"))
	file, digest := b.file(t, nil)
	m := d.machine(a, "root-a")
	if err := upgradeTo(m, b, file, digest); err != nil {
		t.Fatal(err)
	}
	if err := m.withESP(func(system *fat.FS) error { return setEnv(system, bootentry.Env{Good: a.root}) }); err != nil {
		t.Fatal(err)
	}
	all, err := m.entries()
	if _, there := all.of(b.root); there || err != nil || len(all) != 1 {
		t.Errorf("entries: %v, %v", all, err)
	}
}

func TestWhatNoBIOSBoots(t *testing.T) {
	a, b := newImage(t, "1.0.0"), newImage(t, "2.0.0")
	d := newDisk(t, bios, a, newImage(t, "0.9.0"))
	file, digest := b.file(t, nil, func(m *upgrade.Manifest) { m.BIOS = "" })
	err := d.machine(a, "root-a").install(bytes.NewReader(file), terms{policy: anyOne, digest: digest}, nobody)
	if !errors.Is(err, errRefused) || !strings.Contains(err.Error(), "no BIOS boots it") {
		t.Errorf("install = %v", err)
	}
}
