package node

import (
	"context"
	"time"

	"github.com/cosi-os/cosi/engine/boot"
	"github.com/cosi-os/cosi/engine/crash"
	"github.com/cosi-os/cosi/engine/disk"
	"github.com/cosi-os/cosi/engine/trial"
	"github.com/cosi-os/cosi/engine/watchdog"
	"github.com/cosi-os/cosi/engine/wire"
)

// beginTrial arms the kernel's own watchdog at once if the boot is a trial, and has the trial end. The machine's watchdog comes with its driver.
func (n *Node) beginTrial(ctx context.Context) {
	b := trial.Boot{Sys: "/sys", Dev: "/dev", Partition: boot.RootPartition(), Hash: boot.KernelValue(disk.HashArgument)}
	on, err := b.On()
	if err != nil {
		n.complain(err)
	}
	if !on {
		return
	}
	n.log.Printf("this boot is a trial of version %s", n.Image.Version)
	n.load(watchdog.Software)
	w, err := watchdog.Open("/dev")
	if err != nil {
		n.complain(err)
	}
	if n.early = w; w != nil {
		n.background.Go(func() {
			defer crash.Guard()
			w.Run(ctx)
		})
	}
	n.background.Go(func() {
		defer crash.Guard()
		n.endTrial(ctx, b.On, trial.Longest-boot.SinceBoot())
	})
}

// endTrial reboots if the boot is still a trial after a while.
func (n *Node) endTrial(ctx context.Context, on func() (bool, error), after time.Duration) {
	select {
	case <-time.After(after):
	case <-ctx.Done():
		return
	}
	still, err := on()
	if err != nil {
		n.complain(err)
	}
	if still {
		n.shutdown(wire.Shutdown{Reboot: true, Reason: "version " + n.Image.Version + " is not healthy after " + trial.Longest.String()})
	}
}
