package mountevents

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/cosi-os/cosi/plugins/internal/doorbell"
	"github.com/cosi-os/cosi/plugins/internal/mountinfo"
)

// sources are the ways to hear, the best first. Errors are heard beside each, where the kernel lets it. Where the table's own bell is all
// there is, the table is looked at after every silence as well.
func sources(f *faults, silence time.Duration) []doorbell.Source[note] {
	var fentry, kprobe []doorbell.Attachment
	for program, function := range map[string]string{
		"path_mount": "path_mount", "move_mount": "sys_move_mount", "path_umount": "path_umount", "reconfigure_super": "reconfigure_super", "mount_setattr": "sys_mount_setattr",
	} {
		fentry = append(fentry, doorbell.Attachment{Program: "fexit_" + program})
		kprobe = append(kprobe, doorbell.Attachment{Program: "kretprobe_" + program, Function: function, Return: true})
	}
	poll := func() (doorbell.Listener[note], error) {
		table, err := mountinfo.Open()
		return bell{table, silence}, err
	}
	return []doorbell.Source[note]{
		{Mode: doorbell.Fentry, Open: beside(f, doorbell.Probe[note]{Load: loadProbe, Attach: fentry, Decode: decode}.Open)},
		{Mode: doorbell.Kprobe, Open: beside(f, doorbell.Probe[note]{Load: loadProbe, Attach: kprobe, Decode: decode}.Open)},
		{Mode: doorbell.Poll, Open: beside(f, poll)},
		{Mode: doorbell.Poll, Open: poll, Without: "errors of file systems are not noticed"},
	}
}

// both hears of changes and of errors.
type both struct {
	changes doorbell.Listener[note]
	faults  *faults
}

func beside(f *faults, open func() (doorbell.Listener[note], error)) func() (doorbell.Listener[note], error) {
	return func() (doorbell.Listener[note], error) {
		changes, err := open()
		if err != nil {
			return nil, err
		}
		if err := f.open(); err != nil {
			return nil, errors.Join(err, changes.Close())
		}
		return both{changes, f}, nil
	}
}

func (b both) Listen(ctx context.Context, hear func(note), lost func(uint64)) error {
	ctx, cancel := context.WithCancel(ctx)
	var ofFaults error
	var beside sync.WaitGroup
	beside.Go(func() {
		defer cancel() // one that has ended ends both
		ofFaults = b.faults.listen(ctx, hear, lost)
	})
	err := b.changes.Listen(ctx, hear, lost)
	cancel()
	beside.Wait()
	return errors.Join(err, ofFaults)
}

func (b both) Close() error { return errors.Join(b.changes.Close(), b.faults.close()) }

// bell hears that the table has changed, and not how.
type bell struct {
	mountinfo.Bell
	silence time.Duration
}

func (b bell) Listen(ctx context.Context, hear func(note), _ func(uint64)) error {
	return b.Bell.Listen(ctx, b.silence, func() { hear(note{at: doorbell.Now(), what: something}) })
}
