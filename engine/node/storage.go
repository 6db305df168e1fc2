package node

import (
	"context"
	"os"
	"path/filepath"
	"time"

	"github.com/cosi-os/cosi/engine/boot"
	"github.com/cosi-os/cosi/engine/disk"
	"github.com/cosi-os/cosi/engine/wire"
)

// keepClock is how often the time is kept on the state partition: after a loss of power a machine without a clock is that much behind.
const keepClock = time.Hour

// openStorage prepares the place for what outlives the boot: the state partition of a machine, a directory off one.
func (n *Node) openStorage(ctx context.Context) {
	if !n.Machine {
		dir := filepath.Join(n.Root, disk.Mount, "runtime")
		n.storage = &wire.Storage{Dir: dir}
		if err := os.MkdirAll(dir, 0o700); err != nil {
			n.storage = &wire.Storage{Reason: "Error", Message: err.Error()}
		}
		return
	}
	n.disk = &disk.Preparer{
		Partition: boot.RootPartition(), Hash: boot.KernelValue(disk.HashArgument), Options: boot.KernelValue(disk.OptionsArgument),
		Size: boot.KernelValue(disk.SizeArgument), Seal: boot.KernelValue(disk.SealArgument), UID: runtimeUID, GID: runtimeUID, Now: time.Now, Log: n.log.Printf,
		LoadModule: func(name string) error {
			_, err := n.modules.Ask(name, "")
			return err
		},
	}
	if s := n.sealer(ctx); s != nil {
		n.disk.Sealer = s
	}
	n.storage = n.disk.Prepare()
	if n.storage.Dir == "" {
		return
	}
	moved, err := boot.ClockFloor(disk.ReadClock(disk.Mount))
	if err != nil {
		n.complain(err)
	}
	n.ClockSet = n.ClockSet || moved
}

// runClock keeps the time until ctx is done, and once more then.
func (n *Node) runClock(ctx context.Context) {
	if n.disk == nil || n.storage.Dir == "" {
		return
	}
	ticker := time.NewTicker(keepClock)
	defer ticker.Stop()
	for {
		if err := disk.WriteClock(disk.Mount, time.Now()); err != nil {
			n.complain(err)
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			if err := disk.WriteClock(disk.Mount, time.Now()); err != nil {
				n.complain(err)
			}
			return
		}
	}
}

// resetStorage has a damaged state partition be formatted at the next boot.
func (n *Node) resetStorage(r *wire.ResetStorage) {
	if n.disk == nil {
		return
	}
	if err := n.disk.Reset(); err != nil {
		n.log.Printf("reset of the state: %v", err)
		return
	}
	n.log.Printf("the state is formatted at the next boot: %s", r.Reason)
}
