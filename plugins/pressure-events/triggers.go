package pressureevents

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	eventspb "github.com/cosi-os/cosi/api/cosi/events/v1alpha1"
	"github.com/cosi-os/cosi/plugins/internal/donefd"
	"github.com/cosi-os/cosi/plugins/internal/doorbell"
)

// triggers are what the kernel watches, and the listener that hears them ring. Its methods may be called by several goroutines.
type triggers struct {
	mu      sync.Mutex // guards the fields below
	begun   bool
	poll    int   // an epoll; 0 if the files are read again and again
	numbers int32 // the last one that was given
	open    map[string]*trigger
}

// trigger is an open file in which the kernel watches a threshold. Closed, it is gone.
type trigger struct {
	fd        int
	number    int32 // in poll: descriptors are used again
	threshold *eventspb.PressureThreshold
	read      []reading // while it is polled
}

var errNotBegun = errors.New("nothing is watched yet")

// begin opens what waits for triggers. It fails where the kernel has no files in dir: it was built without, or has the argument psi=0; and where
// it takes no triggers of this process.
func (t *triggers) begin(dir string) error {
	fd, err := openTrigger(least, filepath.Join(dir, "memory"))
	if err != nil {
		return err
	}
	unix.Close(fd)
	poll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return fmt.Errorf("epoll: %w", err)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.poll, t.begun = poll, true
	return nil
}

// least is a threshold that any kernel takes that takes one of this process.
var least = &eventspb.PressureThreshold{
	Resource: eventspb.PressureThreshold_MEMORY, Tasks: eventspb.PressureThreshold_SOME, Stall: durationpb.New(2 * time.Second), Window: durationpb.New(2 * time.Second),
}

// Close takes all triggers away. They are set again once it has begun again.
func (t *triggers) Close() error {
	t.keep(func(string, *eventspb.PressureThreshold) bool { return false })
	t.mu.Lock()
	defer t.mu.Unlock()
	poll := t.poll
	t.poll, t.begun = 0, false
	if poll == 0 {
		return nil
	}
	return unix.Close(poll)
}

// keep takes away the triggers of which wanted is false.
func (t *triggers) keep(wanted func(id string, threshold *eventspb.PressureThreshold) bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for id, one := range t.open {
		if !wanted(id, one.threshold) {
			t.remove(id)
		}
	}
}

// remove takes away a trigger. t.mu is held.
func (t *triggers) remove(id string) {
	unix.Close(t.open[id].fd) // which takes it out of poll, too
	delete(t.open, id)
}

// set has the kernel watch a threshold in a file, unless it does so.
func (t *triggers) set(id string, threshold *eventspb.PressureThreshold, file string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.open[id] != nil {
		return nil
	}
	open := openTrigger
	if t.begun && t.poll == 0 {
		open = openPolled
	}
	fd, err := open(threshold, file)
	if err != nil {
		return err
	}
	if !t.begun {
		unix.Close(fd)
		return errNotBegun
	}
	if t.poll == 0 {
		t.open[id] = &trigger{fd: fd, threshold: proto.CloneOf(threshold)}
		return nil
	}
	t.numbers++
	// It rings once in a window at most, and polling takes the ring away.
	event := &unix.EpollEvent{Events: unix.EPOLLPRI, Fd: t.numbers}
	if err := unix.EpollCtl(t.poll, unix.EPOLL_CTL_ADD, fd, event); err != nil {
		unix.Close(fd)
		return fmt.Errorf("wait for %s: %w", file, err)
	}
	t.open[id] = &trigger{fd: fd, number: t.numbers, threshold: proto.CloneOf(threshold)}
	return nil
}

func openTrigger(threshold *eventspb.PressureThreshold, file string) (int, error) {
	fd, err := unix.Open(file, unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.EPERM) {
		return 0, fmt.Errorf("open %s: %w: before Linux 6.4 only CAP_SYS_RESOURCE permits it", file, err)
	}
	if err != nil {
		return 0, fmt.Errorf("open %s: %w", file, err)
	}
	text := trigger{threshold: threshold}.text()
	// The kernel takes the last byte for the end of the text.
	if _, err := unix.Write(fd, []byte(text+"\x00")); err != nil {
		unix.Close(fd)
		return 0, fmt.Errorf("write %q to %s: %w", text, file, err)
	}
	return fd, nil
}

var tasks = map[eventspb.PressureThreshold_Tasks]string{eventspb.PressureThreshold_SOME: "some", eventspb.PressureThreshold_FULL: "full"}

// text is the trigger as the kernel reads it: "some 150000 2000000".
func (t trigger) text() string {
	return fmt.Sprintf("%s %d %d", tasks[t.threshold.GetTasks()], t.threshold.GetStall().AsDuration().Microseconds(), t.threshold.GetWindow().AsDuration().Microseconds())
}

// total reads how long tasks have waited in all.
func (t trigger) total() (time.Duration, error) {
	buffer := make([]byte, 512)
	n, err := unix.Pread(t.fd, buffer, 0)
	if err != nil {
		return 0, err
	}
	return parseTotal(string(buffer[:n]), tasks[t.threshold.GetTasks()])
}

// parseTotal reads a line "some avg10=0.00 avg60=0.00 avg300=0.00 total=15".
func parseTotal(text, tasks string) (time.Duration, error) {
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) == 0 || fields[0] != tasks {
			continue
		}
		if total, ok := strings.CutPrefix(fields[len(fields)-1], "total="); ok {
			return time.ParseDuration(total + "us")
		}
	}
	return 0, fmt.Errorf("no total of %q in %q", tasks, text)
}

// Listen sleeps in the kernel while no threshold is passed.
func (t *triggers) Listen(ctx context.Context, hear func(note), _ func(uint64)) error {
	done, err := donefd.New(ctx)
	if err != nil {
		return err
	}
	defer done.Close()
	t.mu.Lock()
	poll := t.poll
	t.mu.Unlock()
	const stop = 0 // no trigger's number
	if err := unix.EpollCtl(poll, unix.EPOLL_CTL_ADD, done.Number(), &unix.EpollEvent{Events: unix.EPOLLIN, Fd: stop}); err != nil {
		return fmt.Errorf("wait for the end: %w", err)
	}
	events := make([]unix.EpollEvent, 16)
	for {
		n, err := unix.EpollWait(poll, events, -1)
		if err != nil && err != unix.EINTR {
			return fmt.Errorf("wait for pressure: %w", err)
		}
		for _, e := range events[:max(n, 0)] {
			if e.Fd == stop {
				return nil
			}
			if n, ok := t.rang(e); ok {
				hear(n)
			}
		}
	}
}

// rang returns the note of an event.
func (t *triggers) rang(e unix.EpollEvent) (note, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for id, one := range t.open {
		if one.number == e.Fd {
			total, err := one.total()
			return t.note(id, total, err != nil || e.Events&unix.EPOLLERR != 0), true
		}
	}
	return note{}, false // it was taken away meanwhile
}

// note is what there is to say of a trigger. One whose control group has gone is taken away; its note has the threshold looked at again. t.mu
// is held.
func (t *triggers) note(id string, total time.Duration, gone bool) note {
	n := note{at: doorbell.Now(), id: id, threshold: t.open[id].threshold, total: total, gone: gone}
	if gone {
		t.remove(id)
	}
	return n
}
