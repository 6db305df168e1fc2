// Package doorbell is what generators share: how they hear of what the kernel does. A doorbell is never the truth: it says that something
// happened to an object, and the generator then looks at the object itself. What rings are lost is counted, and the generator told to look
// at everything.
//
// A generator names its sources in the order of preference; the first that opens is used, and GeneratorStatuses say which, and why not
// those before it.
package doorbell

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	eventspb "github.com/cosi-os/cosi/api/cosi/events/v1alpha1"
)

// StatusType is the kind that generators write their Bell's Status in.
const StatusType = "GeneratorStatuses.events.cosi.dev"

// Mode is how a generator hears.
type Mode string

// The modes that there are.
const (
	Fentry     Mode = "fentry"     // eBPF at the return of the kernel's functions
	Kprobe     Mode = "kprobe"     // the same by breakpoints
	Tracepoint Mode = "tracepoint" // eBPF at the kernel's tracepoints
	Netlink    Mode = "netlink"    // the kernel's own messages
	Evdev      Mode = "evdev"      // input devices
	Kmsg       Mode = "kmsg"       // the kernel's log
	PSI        Mode = "psi"        // the kernel's triggers on pressure
	Poll       Mode = "poll"       // looking again and again
	none       Mode = "none"
)

// Listener hears notes of type N.
type Listener[N any] interface {
	// Listen calls hear for each note, and lost when the kernel has dropped some, until ctx is done: then it returns nil.
	Listen(ctx context.Context, hear func(N), lost func(notes uint64)) error
	Close() error
}

// Source is a way to hear, not yet open.
type Source[N any] struct {
	Mode Mode
	Open func() (Listener[N], error)
	// Without is what this way does not hear, in words; empty if nothing.
	Without string
}

// Gap is what a generator may not have heard before a Take.
type Gap int

// The gaps that there are, the worse the greater.
const (
	NoGap  Gap = 0
	Opened Gap = 1 // what was before a source was opened
	Lost   Gap = 2 // notes of a source that is open
)

// most is how many notes wait for the generator at most. A generator that is further behind looks at everything.
const most = 4096

// Bell hears by the best of its sources, from the first Take on: a generator that looks at everything first is there before it hears, as a
// probe takes its time to open. Its methods may be called by several goroutines.
type Bell[N any] struct {
	Sources []Source[N]

	mu     sync.Mutex    // guards the fields below
	begun  chan struct{} // closed by the first Take
	status eventspb.GeneratorStatus
	notes  []N
	gap    Gap // if there is one, look at everything
}

// Watch hears until ctx is done, and calls wake when there is something to Take. It fails when no source opens, or an open one fails.
func (b *Bell[N]) Watch(ctx context.Context, wake func()) error {
	select {
	case <-b.beginning():
	case <-ctx.Done():
		return nil
	}
	listener, err := b.open()
	wake() // the mode
	if err != nil {
		return err
	}
	err = listener.Listen(ctx, func(n N) { b.heard(n); wake() }, func(notes uint64) { b.lost(notes); wake() })
	return errors.Join(err, listener.Close())
}

// beginning is closed when the generator has looked for the first time.
func (b *Bell[N]) beginning() chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.begun == nil {
		b.begun = make(chan struct{})
	}
	return b.begun
}

func (b *Bell[N]) open() (Listener[N], error) {
	var unavailable []*eventspb.GeneratorStatus_Unavailable
	var errs []error
	for _, source := range b.Sources {
		listener, err := source.Open()
		if err == nil {
			b.opened(source.Mode, unavailable, source.Without)
			return listener, nil
		}
		unavailable = append(unavailable, &eventspb.GeneratorStatus_Unavailable{Mode: string(source.Mode), Why: err.Error()})
		errs = append(errs, fmt.Errorf("%s: %w", source.Mode, err))
	}
	b.opened(none, unavailable, "it hears nothing")
	return nil, errors.Join(errs...)
}

// opened takes in how the generator hears from now on. What happened before was not heard.
func (b *Bell[N]) opened(mode Mode, unavailable []*eventspb.GeneratorStatus_Unavailable, message string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.status.Mode, b.status.Since, b.status.Unavailable, b.status.Message = string(mode), timestamppb.Now(), unavailable, message
	b.gap = max(b.gap, Opened)
}

func (b *Bell[N]) heard(n N) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.status.Rings++
	if len(b.notes) == most {
		b.miss(1)
		return
	}
	b.notes = append(b.notes, n)
}

func (b *Bell[N]) lost(notes uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.miss(notes)
}

// miss counts notes that are lost. Those before the next Take are made good by the same look at everything. b.mu is held.
func (b *Bell[N]) miss(notes uint64) {
	b.status.Lost += notes
	if b.gap != Lost {
		b.status.Resynchronisations++
	}
	b.gap = Lost
}

// Take returns the notes since the last call, the oldest first. With a gap notes may be missing: look at everything.
func (b *Bell[N]) Take() (notes []N, gap Gap) {
	begun := b.beginning()
	b.mu.Lock()
	defer b.mu.Unlock()
	select {
	case <-begun:
	default:
		close(begun)
	}
	notes, gap = b.notes, b.gap
	b.notes, b.gap = nil, NoGap
	return notes, gap
}

// PutBack returns what was taken and could not be dealt with, for the next Take.
func (b *Bell[N]) PutBack(notes []N, gap Gap) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.notes, b.gap = slices.Concat(notes, b.notes), max(b.gap, gap)
}

// Coalesced takes in that so many notes share an event with another one.
func (b *Bell[N]) Coalesced(notes uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.status.Coalesced += notes
}

// Status is what the generator says of itself, nil before it hears. Counts are of the moment: while notes come in, they change.
func (b *Bell[N]) Status() *eventspb.GeneratorStatus {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.status.GetMode() == "" {
		return nil
	}
	return proto.CloneOf(&b.status)
}

// Now is CLOCK_BOOTTIME, which probes stamp their notes with.
func Now() time.Duration {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &now); err != nil {
		panic(err) // every kernel since 2.6.39 has it
	}
	return time.Duration(now.Nano())
}

// Boottime is when a time of CLOCK_BOOTTIME was, on the clock that now is read from.
func Boottime(at, now time.Duration, clock time.Time) time.Time { return clock.Add(at - now) }
