package mountevents

import (
	"context"
	"errors"
	"log"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/types/known/timestamppb"

	eventspb "github.com/cosi-os/cosi/api/cosi/events/v1alpha1"
	storagepb "github.com/cosi-os/cosi/api/cosi/storage/v1alpha1"
	"github.com/cosi-os/cosi/plugins/internal/doorbell"
	"github.com/cosi-os/cosi/plugins/internal/mountinfo"
	"github.com/cosi-os/cosi/sdk"
)

// generator is the plugin at work. The fields but bell and faults are used by reconcile only.
type generator struct {
	bell   *doorbell.Bell[note]
	faults *faults

	ring  doorbell.Ring[*eventspb.MountEvent]
	table map[key]*seen // nil before the first look
}

func newGenerator(bell *doorbell.Bell[note], f *faults) *generator {
	return &generator{bell: bell, faults: f, ring: doorbell.Ring[*eventspb.MountEvent]{
		Type:     eventType,
		SetCount: func(e *eventspb.MountEvent, count uint64) { e.Count = count },
		// What happens at one place again and again comes first, then all that happens to mounts of one source.
		Same: []func(*eventspb.MountEvent) string{
			func(e *eventspb.MountEvent) string { return e.GetAction() + " " + e.GetTarget() + " " + e.GetSource() },
			func(e *eventspb.MountEvent) string { return e.GetAction() + " " + e.GetSource() },
		},
	}}
}

// reconcile compares the table with what it was, and writes an event for each change that was not asked for and for each error.
func (g *generator) reconcile(ctx context.Context, s *sdk.State) error {
	if err := g.ring.Begin(ctx, s); err != nil {
		return err
	}
	notes, gap := g.bell.Take()
	m := moment{boottime: doorbell.Now(), clock: time.Now(), notes: notes}
	if err := g.look(ctx, s, &m, gap != doorbell.NoGap); err != nil {
		g.bell.PutBack(notes, gap)
		return err
	}
	if g.ring.Incomplete(gap) {
		g.ring.Add(&eventspb.MountEvent{
			Action: "Resynchronised", Time: timestamppb.New(m.clock), BoottimeNs: uint64(m.boottime), Message: "events may be missing; the mount table was read",
		})
	}
	return doorbell.Tell(ctx, s, name, g.bell, &g.ring)
}

// look adds the events since the last look. With again, every file system is marked once more: nobody heard of errors for a while.
func (g *generator) look(ctx context.Context, s *sdk.State, m *moment, again bool) error {
	table, err := mountinfo.Read()
	if err != nil {
		return err
	}
	g.ask(m.notes, table)
	points := sdk.List[*storagepb.MountPoint](s, pointType)
	current := points
	if g.table != nil && !same(g.table, table) {
		// The watch may be behind what the plugin mount has acted on already.
		if current, err = sdk.Fetch[*storagepb.MountPoint](ctx, s, pointType); err != nil {
			return err
		}
		points = slices.Concat(points, current)
	}
	for _, n := range m.notes {
		if n.what == faulty {
			g.ring.Add(m.fault(n, g.table))
		}
	}
	now, changes := compare(g.table, table, points, current)
	if g.table != nil {
		for _, c := range changes {
			g.ring.Add(m.event(c.action, m.rang(c.what), c.mount, c.why))
		}
	}
	g.mark(now, again)
	g.table = now
	return nil
}

// ask has file systems that found an error in themselves, and are not read-only by the table, say whether they still take writes.
func (g *generator) ask(notes []note, table mountinfo.Table) {
	if !slices.ContainsFunc(notes, func(n note) bool { return n.what == faulty || n.what == something }) {
		return
	}
	for _, m := range table {
		is := g.table[keyOf(m)]
		if is == nil {
			continue
		}
		is.faulty = is.faulty || slices.ContainsFunc(notes, func(n note) bool { return n.what == faulty && n.fault.fsid == is.fsid })
		if is.faulty && is.refuses == "" && !readOnly(m) {
			is.refuses = refusal(is.Target)
		}
	}
}

// attribute is one that no file has.
const attribute = "trusted.cosi.dev-nothing"

// refusal asks a file system to take away an attribute that is not there, for which it begins to write before it looks, and returns the error
// that says that it takes no writes: the mount table does not, for ext4 of Linux 6.12 to 6.14, and of 6.1 since it was mended as 6.12 was
// (d3476f3dad4a). That of 6.1 takes an fsync of what nobody has changed.
func refusal(target string) string {
	switch err := unix.Removexattr(target, attribute); err {
	case unix.EIO, unix.EROFS:
		return "writes fail: " + err.Error()
	default:
		return ""
	}
}

// mark has errors heard of each file system that is new, or of all again.
func (g *generator) mark(now map[key]*seen, again bool) {
	for k, is := range now {
		if !strings.HasPrefix(is.Source, "/") || g.table[k] != nil && !again {
			continue // in memory, or marked
		}
		fsid, err := g.faults.mark(is.Target)
		switch {
		case err == nil:
			is.fsid = fsid
		case errors.Is(err, errClosed), errors.Is(err, os.ErrNotExist): // it is told to look again when it hears; the mount is gone
		case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENODEV), errors.Is(err, unix.EXDEV): // the file system has no names for what is in it
		default:
			log.Print(err)
		}
	}
}

// moment is when a look begins, on both clocks, and what rang before.
type moment struct {
	boottime time.Duration
	clock    time.Time
	notes    []note
}

// rang returns when the kernel rang for a change of a kind: the earliest such ring that no other change has had. Where there is none the
// last ring of any kind was it, or the change was found without one.
func (m *moment) rang(w what) time.Duration {
	for i, n := range m.notes {
		if n.what == w {
			m.notes = slices.Concat(m.notes[:i], m.notes[i+1:])
			return n.at
		}
	}
	if len(m.notes) > 0 {
		return m.notes[len(m.notes)-1].at
	}
	return m.boottime
}

func (m *moment) event(action string, at time.Duration, of mountinfo.Mount, message string) *eventspb.MountEvent {
	return &eventspb.MountEvent{
		Action: action, Source: of.Source, Target: of.Target, Fstype: of.Fstype, Device: deviceName(of.Device), Message: message,
		BoottimeNs: uint64(at), Time: timestamppb.New(doorbell.Boottime(at, m.boottime, m.clock)),
	}
}

// fault is the event of an error, of the first mount of the file system that had it.
func (m *moment) fault(n note, table map[key]*seen) *eventspb.MountEvent {
	var of mountinfo.Mount
	for _, is := range table {
		if is.fsid == n.fault.fsid && (of.ID == 0 || is.ID < of.ID) {
			of = is.Mount
		}
	}
	e := m.event("FileSystemError", n.at, of, n.fault.err.Error())
	e.Inode = n.fault.inode
	if n.fault.count > 1 {
		e.Count = n.fault.count
	}
	return e
}

// deviceName is the kernel's name of a block device, empty if it is none.
func deviceName(device uint64) string {
	number := strconv.FormatUint(uint64(unix.Major(device)), 10) + ":" + strconv.FormatUint(uint64(unix.Minor(device)), 10)
	link, err := os.Readlink("/sys/dev/block/" + number)
	if err != nil {
		return ""
	}
	return filepath.Base(link)
}
