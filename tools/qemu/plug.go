package qemu

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

// Plug puts a disk into a running VM: into one of its HotplugPorts ("port0"…), as a USB stick into "usb", or as a SCSI disk into
// "scsi", controllers of that id, or one that begins so.
func (vm *VM) Plug(ctx context.Context, d Disk, port string) error {
	if err := vm.addBackend(ctx, d); err != nil {
		return fmt.Errorf("disk %q: %w", d.ID, err)
	}
	device := map[string]any{"driver": "virtio-blk-pci", "id": d.ID, "drive": d.ID + "-drive", "bus": port, "serial": d.ID}
	switch {
	case strings.HasPrefix(port, "usb"):
		device["driver"], device["bus"] = "usb-storage", port+".0"
	case strings.HasPrefix(port, "scsi"):
		device["driver"], device["bus"] = "scsi-hd", port+".0"
	}
	if err := vm.Monitor.Execute(ctx, "device_add", device, nil); err != nil {
		return fmt.Errorf("disk %q: %w", d.ID, errors.Join(err, vm.removeBackend(ctx, d.ID)))
	}
	return nil
}

// Unplug takes a disk out and waits until the guest has let go of it.
func (vm *VM) Unplug(ctx context.Context, id string) error {
	if err := vm.Monitor.Execute(ctx, "device_del", map[string]string{"id": id}, nil); err != nil {
		return fmt.Errorf("disk %q: %w", id, err)
	}
	_, err := vm.Monitor.WaitEvent(ctx, func(e Event) bool {
		var gone struct{ Device string }
		return e.Name == "DEVICE_DELETED" && json.Unmarshal(e.Data, &gone) == nil && gone.Device == id
	})
	if err != nil {
		return fmt.Errorf("disk %q: %w", id, err)
	}
	return vm.removeBackend(ctx, id)
}

// Insert puts a medium into a reader, a device of that id: a slot for SD cards, or a removable disk.
func (vm *VM) Insert(ctx context.Context, d Disk, reader string) error {
	if err := vm.addBackend(ctx, d); err != nil {
		return fmt.Errorf("medium %q: %w", d.ID, err)
	}
	for _, command := range []struct {
		name      string
		arguments map[string]any
	}{
		{"blockdev-open-tray", map[string]any{"id": reader, "force": true}}, // without a tray this does nothing, nor does the last one
		{"blockdev-insert-medium", map[string]any{"id": reader, "node-name": d.ID + "-drive"}},
		{"blockdev-close-tray", map[string]any{"id": reader}},
	} {
		if err := vm.Monitor.Execute(ctx, command.name, command.arguments, nil); err != nil {
			return fmt.Errorf("medium %q: %w", d.ID, err)
		}
	}
	return nil
}

// Eject takes a medium out of a reader, whatever the guest does with it.
func (vm *VM) Eject(ctx context.Context, id, reader string) error {
	if err := vm.Monitor.Execute(ctx, "eject", map[string]any{"id": reader, "force": true}, nil); err != nil {
		return fmt.Errorf("medium %q: %w", id, err)
	}
	return vm.removeBackend(ctx, id)
}

// addBackend opens a disk's file for a device, or a medium's for a reader.
func (vm *VM) addBackend(ctx context.Context, d Disk) error {
	return vm.Monitor.Execute(ctx, "blockdev-add", map[string]any{
		"node-name": d.ID + "-drive", "driver": d.Format,
		"file":      map[string]any{"driver": "file", "filename": d.File, "read-only": d.ReadOnly},
		"read-only": d.ReadOnly,
	}, nil)
}

func (vm *VM) removeBackend(ctx context.Context, id string) error {
	return vm.Monitor.Execute(ctx, "blockdev-del", map[string]string{"node-name": id + "-drive"}, nil)
}

// SetLink pulls the cable of the NIC, or puts it back.
func (vm *VM) SetLink(ctx context.Context, up bool) error {
	return vm.Monitor.Execute(ctx, "set_link", map[string]any{"name": "nic0", "up": up}, nil)
}
