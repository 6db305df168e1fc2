// Package mount is the plugin that mounts file systems: MountPoints are asked for, MountPointStatuses say how far they are.
//
// What is mounted is read from /proc/self/mountinfo each time, never remembered alone: a plugin that was killed goes on where it
// was. A mount at the target of a MountPoint with its source and file system is taken for its own; any other is left alone and
// the status says TargetBusy.
package mount

import (
	"context"
	_ "embed"
	"errors"
	"sync"

	"github.com/cosi-os/cosi/plugins/internal/mountinfo"
	"github.com/cosi-os/cosi/plugins/internal/uevent"
	"github.com/cosi-os/cosi/sdk"
)

// Types of the plugin's input and output.
const (
	pointType  = "MountPoints.storage.cosi.dev"
	statusType = "MountPointStatuses.storage.cosi.dev"
	// moduleType tells when a file system has come that the kernel did not know.
	moduleType = "KernelModuleStatuses.kernel.cosi.dev"
	// volumeType tells when a volume is open: the kernel's event comes before the device has its name.
	volumeType = "VolumeStatuses.storage.cosi.dev"
)

// Version is the plugin's version.
const Version = "0.1.0"

//go:embed plugin.json
var declared []byte

// Plugin returns the plugin.
func Plugin() sdk.Plugin {
	m := &mounter{applied: map[string]applied{}}
	return sdk.Plugin{
		Declaration: declared,
		Version:     Version,
		Controllers: []sdk.Controller{{
			Name:      "mounts",
			Inputs:    []string{pointType, moduleType, volumeType},
			Outputs:   []string{statusType},
			Reconcile: m.reconcile,
			Watch:     m.watch,
		}},
	}
}

// watch wakes the controller when a block device comes or goes, and when somebody mounts or unmounts.
func (m *mounter) watch(ctx context.Context, wake func()) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	bells := []func() error{
		func() error {
			return uevent.Watch(ctx, func(e uevent.Event) {
				if e.Action == uevent.Lost || e.Variables["SUBSYSTEM"] == "block" {
					wake()
				}
			})
		},
		func() error {
			table, err := mountinfo.Open()
			if err != nil {
				return err
			}
			wake() // what happened before did not ring
			return errors.Join(table.Listen(ctx, 0, wake), table.Close())
		},
	}
	errs := make([]error, len(bells))
	var tasks sync.WaitGroup
	for i, bell := range bells {
		tasks.Go(func() {
			errs[i] = bell()
			cancel() // one that has ended ends all
		})
	}
	tasks.Wait()
	return errors.Join(errs...)
}
