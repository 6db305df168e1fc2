package blockevents

import (
	"maps"
	"slices"
	"time"

	"github.com/cosi-os/cosi/plugins/internal/doorbell"
)

// poll hears what is different in /sys from what it was.
func poll(sys string, every time.Duration) (doorbell.Listener[note], error) {
	before, err := look(sys)
	if err != nil {
		return nil, err
	}
	return doorbell.Poller[note]{Every: every, Look: func() ([]note, error) {
		now, err := look(sys)
		if err != nil {
			return nil, err
		}
		notes := now.since(before, doorbell.Now())
		before = now
		return notes, nil
	}}, nil
}

// seen is a device as it was at one time. The note is yet to say what has happened, and when.
type seen struct {
	note
	size     uint64
	readOnly bool
	diskseq  uint64 // of its disk, which no other has
}

// devices are all of them, by the kernel's names.
func (w world) devices() map[string]seen {
	all := map[string]seen{}
	for name, d := range w.disks {
		all[name] = seen{note{name: name, device: device{d.GetMajor(), d.GetMinor()}}, d.GetSize(), d.GetReadOnly(), d.GetDiskseq()}
	}
	for name, p := range w.partitions {
		all[name] = seen{note{name: name, device: device{p.GetMajor(), p.GetMinor()}, partition: true}, p.GetSize(), p.GetReadOnly(), w.disks[p.GetDisk()].GetDiskseq()}
	}
	return all
}

// since returns the notes of what is different from before: what has gone, partitions before their disk, and then what has come or changed.
func (w world) since(before world, at time.Duration) (notes []note) {
	tell := func(d seen, w what) {
		d.at, d.what = at, w
		notes = append(notes, d.note)
	}
	old, now := before.devices(), w.devices()
	for _, name := range slices.Backward(slices.Sorted(maps.Keys(old))) {
		if was, is := old[name], now[name]; is.device != was.device || is.diskseq != was.diskseq {
			tell(was, removed)
			delete(old, name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(now)) {
		is := now[name]
		was, there := old[name]
		if !there {
			tell(is, added)
			continue
		}
		if is.size != was.size {
			tell(is, resized)
		}
		if is.readOnly != was.readOnly {
			tell(is, readOnly)
		}
	}
	return notes
}
