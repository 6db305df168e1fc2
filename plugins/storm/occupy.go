package storm

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

const (
	// most is more than the programs that a function can have at its entry and return: BPF_MAX_TRAMP_LINKS, 38 on Linux 6.1.
	most = 256
	// again is how soon the place of a program that has gone is taken: sooner than a plugin that is killed comes back.
	again = 10 * time.Millisecond
)

// occupier holds a function with programs that do nothing.
type occupier struct {
	function string
	held     []link.Link
	next     *ebpf.Program // loaded, to take the next place: loading one takes a processor that is emulated a tenth of a second
	stop     chan struct{}
	stopped  chan error
}

// occupy attaches programs to a function of the kernel until it takes no more, and takes each place that becomes free later: whoever wants to
// be told of its return has to find another way.
func occupy(function string) (io.Closer, error) {
	o := &occupier{function: function, stop: make(chan struct{}), stopped: make(chan error, 1)}
	if err := o.fill(); err != nil {
		return nil, errors.Join(err, o.release())
	}
	go func() { o.stopped <- o.hold() }()
	return o, nil
}

// Close lets the function go. It fails if it was not held all the time.
func (o *occupier) Close() error {
	close(o.stop)
	return errors.Join(<-o.stopped, o.release())
}

func (o *occupier) hold() error {
	for {
		select {
		case <-time.After(again):
		case <-o.stop:
			return nil
		}
		if err := o.fill(); err != nil {
			return err
		}
	}
}

func (o *occupier) fill() error {
	for len(o.held) < most {
		if o.next == nil {
			var err error
			if o.next, err = load(o.function); err != nil {
				return fmt.Errorf("%s: %w", o.function, err)
			}
		}
		attached, err := link.AttachTracing(link.TracingOptions{Program: o.next})
		if errors.Is(err, unix.E2BIG) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("%s: %w", o.function, err)
		}
		o.held = append(o.held, attached)
		if err := o.next.Close(); err != nil { // the link holds it
			return err
		}
		o.next = nil
	}
	return fmt.Errorf("%s: takes more than %d programs", o.function, most)
}

func (o *occupier) release() error {
	errs := []error{o.next.Close()} // of nil, too
	for _, attached := range o.held {
		errs = append(errs, attached.Close())
	}
	return errors.Join(errs...)
}

func load(function string) (*ebpf.Program, error) {
	return ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.Tracing, AttachType: ebpf.AttachTraceFExit, AttachTo: function, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()},
	})
}
