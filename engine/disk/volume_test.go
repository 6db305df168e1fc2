package disk

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/cosi-os/cosi/api/layout/gpt"
	"github.com/cosi-os/cosi/api/volume"
	"github.com/cosi-os/cosi/engine/wire"
)

// tpm seals by a mark at the beginning: what a device shows is behind it.
type tpm struct {
	m       *machine
	missing string
	err     error
	plain   []string // what it was told of partitions that are not sealed
}

func (s *tpm) Missing() string { return s.missing }

func (s *tpm) Plain(partition, why string) {
	s.plain = append(s.plain, strings.TrimSpace(partition+" "+why))
}

func (s *tpm) Do(order, partition string) (*volume.State, error) {
	if s.err != nil {
		return nil, s.err
	}
	p := s.m.parts[partition]
	if order == volume.Create {
		s.m.WriteAt([]byte(luksMagic), p.start)
		s.m.Sync()
	}
	p.start += sealedReserve
	s.m.parts["/dev/dm-1"] = p
	return &volume.State{Partition: partition, Sealed: true, Device: "/dev/dm-1", Size: p.end - p.start}, nil
}

var errTPM = errors.New("the TPM does not answer")

func TestWhenTheStateIsSealed(t *testing.T) {
	for _, c := range []struct {
		name   string
		seal   string
		sealer *tpm // nil: the image has none
		size   int64
		reason string // of there being no state
		sealed bool
		plain  []string
	}{
		{"a node as ever", "", nil, 80, "", false, nil},
		{"an image that wants it and cannot", SealAlways, nil, 80, otherError, false, nil},
		{"a machine without a TPM", "", &tpm{missing: "no TPM"}, 80, "", false, []string{"/dev/vda5 no TPM"}},
		{"an image that says always, without a policy", SealAlways, &tpm{missing: "no policy"}, 80, "", true, nil},
		{"a signed image, with a TPM", "", &tpm{}, 80, "", true, nil},
		{"an image that says never", SealNever, &tpm{}, 80, "", false, []string{"/dev/vda5"}},
		{"a TPM that does not answer", "", &tpm{err: errTPM}, 80, "", false, []string{"/dev/vda5 the TPM does not answer"}},
		{"one that has to", SealAlways, &tpm{err: errTPM}, 80, otherError, false, nil},
		{"a disk that is too small", "", &tpm{}, 72, "", false, []string{"/dev/vda5 a sealed state takes 68 MiB"}},
		{"one that has to be larger", SealAlways, &tpm{}, 72, noSpace, false, nil},
	} {
		m := boot(t, small(t, c.size*mib))
		s, p := sealed(m, c.sealer, c.seal)
		is := p.Prepare()
		if is.Reason != c.reason || is.Frozen || (is.Dir == "") != (c.reason != "") {
			t.Errorf("%s: %+v; want reason %q", c.name, is, c.reason)
		}
		if got := m.mounted == "/dev/dm-1"; got != c.sealed {
			t.Errorf("%s: %q is mounted; want a sealed one: %v", c.name, m.mounted, c.sealed)
		}
		if s != nil && !slices.Equal(s.plain, c.plain) {
			t.Errorf("%s: it was told of %q; want %q", c.name, s.plain, c.plain)
		}
	}
}

// sealed is the preparer of a machine with a sealer.
func sealed(m *machine, like *tpm, seal string) (*tpm, *Preparer) {
	p := m.preparer()
	p.Seal = seal
	if like == nil {
		return nil, p
	}
	s := *like
	s.m, p.Sealer = m, &s
	return &s, p
}

// What is there stays as it is, sealed or not, whatever the image says now.
func TestASealedStateStaysSealed(t *testing.T) {
	m := boot(t, small(t, 80*mib))
	_, p := sealed(m, &tpm{}, "")
	if is := p.Prepare(); is.Dir == "" {
		t.Fatalf("the first boot: %+v", is)
	}
	m.keep()
	there := bytes.Clone(m.disk)
	for _, c := range []struct {
		name, seal string
		sealer     *tpm
		reason     string
	}{
		{"the next boot", "", &tpm{}, ""},
		{"of an image that says never", SealNever, &tpm{missing: "no policy"}, ""},
		{"the TPM does not open it", SealAlways, &tpm{err: errTPM}, wire.StorageLocked},
		{"an image without the plugin", "", nil, wire.StorageLocked},
	} {
		m := boot(t, bytes.Clone(there))
		_, p := sealed(m, c.sealer, c.seal)
		is := p.Prepare()
		if is.Reason != c.reason || is.Frozen != (c.reason != "") || c.reason == "" && (m.mounted != "/dev/dm-1" || !m.kept()) {
			t.Errorf("%s: %+v, %q is mounted; want reason %q", c.name, is, m.mounted, c.reason)
		}
		if c.reason != "" && !bytes.Equal(m.disk, there) {
			t.Errorf("%s: and it was written to", c.name)
		}
	}
	// It grows with its disk.
	m = boot(t, append(there, make([]byte, 40*mib)...))
	_, p = sealed(m, &tpm{}, "")
	if is := p.Prepare(); is.Dir == "" || !m.kept() {
		t.Errorf("on a larger disk: %+v", is)
	}
	m = finished(t, small(t, 80*mib))
	s, p := sealed(boot(t, m.disk), &tpm{}, SealAlways)
	if is := p.Prepare(); is.Dir == "" || s.m.mounted != "/dev/vda5" || !slices.Equal(s.plain, []string{"/dev/vda5"}) {
		t.Errorf("one that was not sealed: %+v, %q", is, s.plain)
	}
}

// One whose recovery key is lost is given up, for one that need not be sealed.
func TestALockedStateIsGivenUp(t *testing.T) {
	for _, again := range []*tpm{{}, {missing: "no TPM"}} {
		m := boot(t, small(t, 80*mib))
		_, p := sealed(m, &tpm{}, "")
		p.Prepare()
		m = boot(t, m.disk)
		_, p = sealed(m, &tpm{err: errTPM}, "")
		if is := p.Prepare(); is.Reason != wire.StorageLocked {
			t.Fatalf("the TPM does not open it: %+v", is)
		}
		if err := p.Reset(); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			m = boot(t, m.disk)
			_, p = sealed(m, again, "")
			want := "/dev/vda5"
			if again.missing == "" {
				want = "/dev/dm-1"
			}
			if is := p.Prepare(); is.Dir == "" || m.mounted != want {
				t.Errorf("after the reset: %+v, %q is mounted; want %s", is, m.mounted, want)
			}
		}
	}
}

// TestEachCutOfTheFirstSealedBoot cuts the boot that seals: the next one comes to a sealed state.
func TestEachCutOfTheFirstSealedBoot(t *testing.T) {
	before := small(t, 80*mib)
	m := boot(t, bytes.Clone(before))
	_, p := sealed(m, &tpm{}, "")
	p.Prepare()
	seed, cuts := rand.Uint64(), 0
	for disk := range m.recorder.Cuts(before, rand.New(rand.NewPCG(seed, 0)), 2) {
		cuts++
		again := boot(t, bytes.Clone(disk))
		_, p := sealed(again, &tpm{}, "")
		is := p.Prepare()
		table, err := gpt.Read(again, int64(len(disk)))
		if is.Dir == "" || again.mounted != "/dev/dm-1" || err != nil || table.Partitions[4].Name != nameState {
			t.Fatalf("seed %d, cut %d: %+v, %v", seed, cuts, is, err)
		}
	}
	if cuts < 20 {
		t.Errorf("%d cuts only", cuts)
	}
}
