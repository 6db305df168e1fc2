package powerevents

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/cosi-os/cosi/plugins/internal/donefd"
)

// inputs are the input devices that matter.
type inputs struct {
	dir string // /dev/input
	// identify tells the name of an open device, and whether it matters. Tests have no device of the kernel.
	identify func(fd int) (name string, ours bool, _ error)
}

// devices are those that are open.
type devices struct {
	inputs
	hear    func(note)
	lost    func(uint64)
	notify  int // inotify: something about the device nodes has changed
	stop    int
	open    map[string]inputDevice // by path
	refused map[string]bool        // not to be tried again: it does not matter
}

type inputDevice struct {
	fd   int
	name string
}

// watch holds the input devices open and hears them, until ctx is done. Devices may come and go; their nodes may change owner after they came.
func (i inputs) watch(ctx context.Context, hear func(note), lost func(uint64)) error {
	notify, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return fmt.Errorf("inotify: %w", err)
	}
	defer unix.Close(notify)
	done, err := donefd.New(ctx)
	if err != nil {
		return err
	}
	defer done.Close()
	d := &devices{inputs: i, hear: hear, lost: lost, notify: notify, stop: done.Number(), open: map[string]inputDevice{}, refused: map[string]bool{}}
	defer d.close()
	return d.run()
}

func (d *devices) run() error {
	for {
		if err := d.scan(); err != nil {
			return err
		}
		for rescan := false; !rescan; {
			ready, err := d.wait()
			if err != nil {
				return err
			}
			if ready[d.stop] {
				return nil
			}
			rescan = ready[d.notify]
			d.read(ready)
		}
		d.forgetNotices()
	}
}

// wait returns the descriptors that have something to read.
func (d *devices) wait() (map[int]bool, error) {
	poll := []unix.PollFd{{Fd: int32(d.stop), Events: unix.POLLIN}, {Fd: int32(d.notify), Events: unix.POLLIN}}
	for _, dev := range d.open {
		poll = append(poll, unix.PollFd{Fd: int32(dev.fd), Events: unix.POLLIN})
	}
	if _, err := unix.Poll(poll, -1); err != nil && err != unix.EINTR {
		return nil, fmt.Errorf("poll input devices: %w", err)
	}
	ready := map[int]bool{}
	for _, p := range poll {
		ready[int(p.Fd)] = p.Revents != 0
	}
	return ready, nil
}

// read hears the devices that are ready, and closes those that are gone.
func (d *devices) read(ready map[int]bool) {
	buffer := make([]byte, 64*eventSize)
	for path, dev := range d.open {
		if !ready[dev.fd] {
			continue
		}
		n, err := unix.Read(dev.fd, buffer)
		if err == unix.EAGAIN || err == unix.EINTR {
			continue
		}
		if err != nil || n == 0 {
			unix.Close(dev.fd)
			delete(d.open, path)
			continue
		}
		notes, dropped := fromEvdev(dev.name, buffer[:n])
		for _, n := range notes {
			d.hear(n)
		}
		if dropped {
			d.lost(1) // at least
		}
	}
}

// scan looks for devices that were not there before. The directory itself may not be there before the first device.
func (d *devices) scan() error {
	const events = unix.IN_CREATE | unix.IN_ATTRIB | unix.IN_DELETE
	for _, dir := range []string{filepath.Dir(d.dir), d.dir} {
		if _, err := unix.InotifyAddWatch(d.notify, dir, events); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("inotify %s: %w", dir, err)
		}
	}
	paths, err := filepath.Glob(filepath.Join(d.dir, "event*"))
	if err != nil {
		return err
	}
	there := map[string]bool{}
	for _, path := range paths {
		there[path] = true
		if _, ok := d.open[path]; !ok && !d.refused[path] {
			d.add(path)
		}
	}
	for path := range d.refused {
		if !there[path] {
			delete(d.refused, path) // the next device of the name is another one
		}
	}
	return nil
}

func (d *devices) add(path string) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return // not ours yet: PID 1 hands the node over in a moment, which inotify says
	}
	name, ours, err := d.identify(fd)
	if err != nil || !ours {
		unix.Close(fd)
		d.refused[path] = true
		return
	}
	log.Printf("%s is %q", path, name)
	d.open[path] = inputDevice{fd, name}
}

// forgetNotices empties the inotify queue: scan looks for itself.
func (d *devices) forgetNotices() {
	buffer := make([]byte, 4096)
	for {
		if n, err := unix.Read(d.notify, buffer); n <= 0 || err != nil {
			return
		}
	}
}

func (d *devices) close() {
	for _, dev := range d.open {
		unix.Close(dev.fd)
	}
}
