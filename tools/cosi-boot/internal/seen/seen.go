// Package seen keeps the list of machines that have asked the boot server for something, with how far each has come.
//
// What serves DHCP, TFTP and HTTP notes what it has done; the page and the command line read the list, and wait for its changes. All that a
// machine says of itself may be untrue. The list has an end: when it is full, the machine that was heard of longest ago makes room.
package seen

import (
	"cmp"
	"context"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// Stage is how far a machine has come in this boot.
type Stage string

// Stages, in the order in which a boot goes through them; one that starts iPXE from its own ROM has no Loader, one that boots by HTTP goes
// from DHCP to Kernel.
const (
	DHCP     Stage = "dhcp"      // its firmware was told what to load
	Loader   Stage = "loader"    // it has iPXE, by TFTP
	Script   Stage = "script"    // iPXE has its script
	Kernel   Stage = "kernel"    // it has the kernel
	UserData Stage = "user-data" // the node has its user data
	Serving  Stage = "serving"   // its API answers; whether it is ready, it tells only those who may ask
)

// Machine is one of the list, by its MAC address.
type Machine struct {
	MAC      string     `json:"mac"`
	Address  netip.Addr `json:"address,omitzero"`
	UUIDs    []string   `json:"uuids,omitempty"` // two until it is known in which order the firmware says its bytes
	Serial   string     `json:"serial,omitempty"`
	Firmware string     `json:"firmware,omitempty"` // "BIOS", "UEFI", "UEFI HTTP"
	Image    string     `json:"image,omitempty"`
	Stage    Stage      `json:"stage"`
	Boots    int        `json:"boots"`             // how often it began one, as far as anything came of that
	Problem  string     `json:"problem,omitempty"` // what it was refused last, in this boot
	First    time.Time  `json:"first"`
	Last     time.Time  `json:"last"`

	sequence uint64
}

// List is safe for concurrent use.
type List struct {
	limit int
	now   func() time.Time

	mu       sync.Mutex // guards the fields below
	machines map[string]*Machine
	sequence uint64
	dropped  uint64        // the sequence at which a machine was dropped last
	changed  chan struct{} // closed when something changes
}

// New returns an empty list for so many machines.
func New(limit int, now func() time.Time) *List {
	return &List{limit: limit, now: now, machines: map[string]*Machine{}, changed: make(chan struct{})}
}

// Note has change say what is new of a machine, which is added if it is not there.
func (l *List) Note(mac string, change func(*Machine)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sequence++
	m := l.machines[mac]
	if m == nil {
		if len(l.machines) >= l.limit {
			l.drop()
		}
		m = &Machine{MAC: mac, First: l.now()}
		l.machines[mac] = m
	}
	change(m)
	m.Last, m.sequence = l.now(), l.sequence
	close(l.changed)
	l.changed = make(chan struct{})
}

// drop makes room for one. The caller holds mu.
func (l *List) drop() {
	var oldest *Machine
	for _, m := range l.machines {
		if oldest == nil || m.sequence < oldest.sequence {
			oldest = m
		}
	}
	delete(l.machines, oldest.MAC)
	l.dropped = l.sequence
}

// Begin notes that a boot begins. It is the same boot as long as it comes no farther: firmware repeats what is not answered at once.
func (m *Machine) Begin() {
	if m.Stage != DHCP {
		m.Boots++
	}
	m.Stage, m.Problem = DHCP, ""
}

// Reach notes that the machine has come as far as a stage.
func (m *Machine) Reach(s Stage) { m.Stage, m.Problem = s, "" }

// Refuse notes why the machine was not given what it asked for.
func (m *Machine) Refuse(problem string) { m.Problem = problem }

// Get returns a machine, if it is on the list.
func (l *List) Get(mac string) (Machine, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	m, ok := l.machines[mac]
	if !ok {
		return Machine{}, false
	}
	return *m, true
}

// Since returns the machines that have changed since sequence, by their MAC addresses, and the sequence of now. whole is true if they are the
// whole list, which takes the place of an earlier one. That of 0 is.
func (l *List) Since(sequence uint64) (all []Machine, now uint64, whole bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	whole = sequence == 0 || sequence < l.dropped
	for _, m := range l.machines {
		if whole || m.sequence > sequence {
			all = append(all, *m)
		}
	}
	slices.SortFunc(all, func(a, b Machine) int { return cmp.Compare(a.MAC, b.MAC) })
	return all, l.sequence, whole
}

// Wait returns when the list is another than that of sequence. It fails when ctx ends.
func (l *List) Wait(ctx context.Context, sequence uint64) error {
	for {
		l.mu.Lock()
		now, changed := l.sequence, l.changed
		l.mu.Unlock()
		if now != sequence {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
