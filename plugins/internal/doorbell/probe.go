package doorbell

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/ringbuf"
)

// Attachment is a program of a probe and where it goes, by the mode.
type Attachment struct {
	Program string
	// Function is what a kprobe or kretprobe is set on; a program for fentry, fexit or a raw tracepoint says it itself.
	Function string
	Return   bool // a kretprobe
	// Optional: a kernel without the function is heard without it.
	Optional bool
}

// Probe is an eBPF object that includes doorbell.h, not yet loaded.
type Probe[N any] struct {
	Load   func() (*ebpf.CollectionSpec, error)
	Attach []Attachment
	// Decode reads what a program wrote; ok is false for what it does not know.
	Decode func(note []byte) (n N, ok bool)
}

// Open loads the programs that are attached, and no others.
func (p Probe[N]) Open() (Listener[N], error) {
	spec, err := p.Load()
	if err != nil {
		return nil, err
	}
	wanted := map[string]bool{}
	for _, a := range p.Attach {
		wanted[a.Program] = true
	}
	for name := range spec.Programs {
		if !wanted[name] {
			delete(spec.Programs, name)
		}
	}
	if err := unheard(spec); err != nil {
		return nil, err
	}
	collection, err := Load(spec)
	if err != nil {
		return nil, err
	}
	defer collection.Close() // links and the reader hold what they need
	l := &probeListener[N]{decode: p.Decode}
	if l.dropped, err = collection.Maps["dropped"].Memory(); err != nil {
		return nil, fmt.Errorf("count of dropped notes: %w", err)
	}
	for _, a := range p.Attach {
		attached, err := attach(a, collection.Programs[a.Program])
		if err != nil && a.Optional && errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, errors.Join(fmt.Errorf("%s: %w", a.Program, err), l.Close())
		}
		l.links, l.programs = append(l.links, attached), append(l.programs, collection.DetachProgram(a.Program))
	}
	if l.reader, err = ringbuf.NewReader(collection.Maps["notes"]); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

func attach(a Attachment, program *ebpf.Program) (link.Link, error) {
	switch program.Type() {
	case ebpf.Tracing:
		return link.AttachTracing(link.TracingOptions{Program: program})
	case ebpf.RawTracepoint:
		return link.AttachRawTracepoint(link.RawTracepointOptions{Name: a.Function, Program: program})
	case ebpf.Kprobe:
		if a.Return {
			return link.Kretprobe(a.Function, program, nil)
		}
		return link.Kprobe(a.Function, program, nil)
	}
	return nil, fmt.Errorf("programs of type %v are not attached", program.Type())
}

// probeListener is a probe at work.
type probeListener[N any] struct {
	links    []link.Link
	programs []*ebpf.Program
	reader   *ringbuf.Reader
	dropped  *ebpf.Memory
	decode   func([]byte) (N, bool)

	missed  uint64    // runs of programs
	asked   time.Time // when that was
	counted uint64    // of what was lost
}

// ask is how often, at most, the kernel is asked for what its programs missed: after a ring, at the latest when it is so long ago.
const ask = time.Second

// pace is how long a buffer that has just been emptied is left alone when it has rung again meanwhile: in a storm, being woken for each note
// costs more than reading it. The buffer has room for all that comes in 5 ms: 64 KiB, 900 notes of block-events.
const pace = 5 * time.Millisecond

// Listen sleeps in the kernel while nothing rings.
func (l *probeListener[N]) Listen(ctx context.Context, hear func(N), lost func(uint64)) error {
	stop := context.AfterFunc(ctx, func() { l.reader.Close() })
	defer stop()
	var record ringbuf.Record
	var emptied time.Time
	for {
		err := l.reader.ReadInto(&record)
		if errors.Is(err, ringbuf.ErrClosed) {
			return nil
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			if err := l.count(lost); err != nil {
				return err
			}
			continue
		}
		if err != nil {
			return fmt.Errorf("ring buffer: %w", err)
		}
		if n, ok := l.decode(record.RawSample); ok {
			hear(n)
		}
		// A buffer that was full has been read by now: what was lost is counted at the latest when it is empty again.
		if record.Remaining > 0 {
			continue
		}
		if err := l.count(lost); err != nil {
			return err
		}
		if time.Since(emptied) < pace {
			select {
			case <-time.After(pace):
			case <-ctx.Done():
				return nil
			}
		}
		emptied = time.Now()
	}
}

// count counts what was lost since the last time: notes that there was no room for, and runs of a program that the kernel left out, since another
// one that it had interrupted was at it on the same processor.
func (l *probeListener[N]) count(lost func(uint64)) error {
	var dropped [8]byte
	if _, err := l.dropped.ReadAt(dropped[:], 0); err != nil {
		return fmt.Errorf("count of dropped notes: %w", err)
	}
	if time.Since(l.asked) < ask {
		l.reader.SetDeadline(l.asked.Add(ask))
	} else if err := l.askMissed(); err != nil {
		return err
	}
	all := binary.NativeEndian.Uint64(dropped[:]) + l.missed
	if all > l.counted {
		lost(all - l.counted)
		l.counted = all
	}
	return nil
}

// askMissed is not done after each ring: in a storm that leaves as much garbage behind as the notes.
func (l *probeListener[N]) askMissed() error {
	l.missed, l.asked = 0, time.Now()
	l.reader.SetDeadline(time.Time{})
	for _, program := range l.programs {
		stats, err := program.Stats()
		if err != nil {
			return fmt.Errorf("%v: %w", program, err)
		}
		l.missed += stats.RecursionMisses
	}
	return nil
}

// Close detaches the programs.
func (l *probeListener[N]) Close() error {
	var errs []error
	for _, attached := range l.links {
		errs = append(errs, attached.Close())
	}
	if l.reader != nil {
		errs = append(errs, l.reader.Close())
	}
	for _, program := range l.programs {
		errs = append(errs, program.Close())
	}
	return errors.Join(errs...)
}
