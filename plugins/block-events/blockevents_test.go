package blockevents

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	eventspb "github.com/cosi-os/cosi/api/cosi/events/v1alpha1"
	storagepb "github.com/cosi-os/cosi/api/cosi/storage/v1alpha1"
	"github.com/cosi-os/cosi/engine/runtime/plugintest"
	"github.com/cosi-os/cosi/plugins/internal/doorbell"
	"github.com/cosi-os/cosi/sdk"
)

// kernel is hardware: a /sys of files, and a doorbell.
type kernel struct {
	t     *testing.T
	sys   string
	notes chan note
	lost  chan uint64
}

func newKernel(t *testing.T) *kernel {
	t.Helper()
	k := &kernel{t, t.TempDir(), make(chan note), make(chan uint64)}
	if err := os.MkdirAll(filepath.Join(k.sys, "class", "block"), 0o755); err != nil {
		t.Fatal(err)
	}
	return k
}

// plug makes a device with attributes, by their names below its directory.
func (k *kernel) plug(path string, attributes map[string]string) {
	k.t.Helper()
	dir := filepath.Join(k.sys, "devices", path)
	for name, text := range attributes {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			k.t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			k.t.Fatal(err)
		}
	}
	if err := os.Symlink(dir, filepath.Join(k.sys, "class", "block", filepath.Base(path))); err != nil {
		k.t.Fatal(err)
	}
}

// set changes an attribute.
func (k *kernel) set(path, text string) {
	k.t.Helper()
	if err := os.WriteFile(filepath.Join(k.sys, "devices", path), []byte(text), 0o600); err != nil {
		k.t.Fatal(err)
	}
}

func (k *kernel) unplug(path string) {
	k.t.Helper()
	if err := os.Remove(filepath.Join(k.sys, "class", "block", filepath.Base(path))); err != nil {
		k.t.Fatal(err)
	}
}

func (k *kernel) Listen(ctx context.Context, hear func(note), lost func(uint64)) error {
	for {
		select {
		case n := <-k.notes:
			hear(n)
		case n := <-k.lost:
			lost(n)
		case <-ctx.Done():
			return nil
		}
	}
}

func (*kernel) Close() error { return nil }

// start runs the plugin on k, until the test or end ends it.
func (k *kernel) start(r *plugintest.Runtime) (end func()) {
	return k.startWith(r, []doorbell.Source[note]{{Mode: doorbell.Fentry, Open: func() (doorbell.Listener[note], error) { return k, nil }}})
}

func (k *kernel) startWith(r *plugintest.Runtime, sources []doorbell.Source[note]) (end func()) {
	k.t.Setenv(sdk.EnvEndpoint, r.Endpoint)
	ctx, cancel := context.WithCancel(k.t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = sdk.Run(ctx, plugin(newGenerator(&doorbell.Bell[note]{Sources: sources}, k.sys)))
	}()
	end = func() { cancel(); <-done }
	k.t.Cleanup(end)
	r.WaitReady()
	return end
}

// vdb is a virtio disk with a partition.
func (k *kernel) plugVdb() {
	k.plug("pci0000:00/virtio2/block/vdb", map[string]string{
		"dev": "254:16\n", "uevent": "MAJOR=254\nMINOR=16\nDEVNAME=vdb\nDEVTYPE=disk\n", "size": "131072\n", "ro": "0\n", "removable": "0\n", "serial": "data",
		"diskseq": "9\n", "queue/logical_block_size": "512\n", "queue/physical_block_size": "4096\n", "queue/rotational": "1\n",
	})
	k.plug("pci0000:00/virtio2/block/vdb/vdb1", map[string]string{
		"dev": "254:17\n", "uevent": "MAJOR=254\nMINOR=17\nDEVNAME=vdb1\nDEVTYPE=partition\nPARTN=1\nPARTNAME=data part\nPARTUUID=0b1c\n",
		"partition": "1\n", "start": "2048\n", "size": "4096\n", "ro": "1\n",
	})
}

func TestDevicesAndEvents(t *testing.T) {
	k := newKernel(t)
	r := plugintest.Start(t, declared)
	end := k.start(r)
	disk, partition, event, status := &storagepb.Disk{}, &storagepb.Partition{}, &eventspb.BlockEvent{}, &eventspb.GeneratorStatus{}

	k.plugVdb()
	k.notes <- note{at: 7, what: added, device: device{254, 16}, name: "vdb"}
	k.notes <- note{at: 8, what: added, device: device{254, 17}, name: "vdb1", partition: true}
	r.Wait("both events are there", func() bool { return r.Get(doorbell.ID(2), event) != nil })
	if r.Get("vdb", disk) == nil || disk.GetDevice() != "/dev/vdb" || disk.GetSize() != 64<<20 || disk.GetTransport() != "virtio" || disk.GetSerial() != "data" ||
		disk.GetPhysicalBlockSize() != 4096 || !disk.GetRotational() || disk.GetReadOnly() || disk.GetDiskseq() != 9 || disk.GetSysPath() != "/devices/pci0000:00/virtio2/block/vdb" {
		t.Errorf("disk %v", disk)
	}
	if r.Get("vdb1", partition) == nil || partition.GetDisk() != "vdb" || partition.GetNumber() != 1 || partition.GetStart() != 1<<20 || partition.GetSize() != 2<<20 ||
		!partition.GetReadOnly() || partition.GetLabel() != "data part" || partition.GetUuid() != "0b1c" {
		t.Errorf("partition %v", partition)
	}
	if event.GetAction() != "Added" || event.GetDevice() != "vdb1" || event.GetDeviceType() != "partition" || event.GetBoottimeNs() != 8 || event.GetMinor() != 17 || event.GetTime() == nil {
		t.Errorf("event %v", event)
	}

	k.notes <- note{at: 9, what: ioError, device: device{254, 16}, name: "vdb", sector: 80, status: 10}
	r.Wait("the disk has an error", func() bool { return r.Get("vdb", disk) != nil && disk.GetIoErrors() == 1 })
	r.Wait("the event says which", func() bool {
		return r.Get(doorbell.ID(3), event) != nil && event.GetMessage() == "I/O error, sector 80"
	})

	k.unplug("vdb1")
	k.unplug("vdb")
	k.notes <- note{at: 10, what: removed, device: device{254, 16}, name: "vdb"}
	r.Wait("it is gone", func() bool {
		return r.Get("vdb", disk) == nil && r.Get("vdb1", partition) == nil && r.Get(doorbell.ID(4), event) != nil
	})

	k.lost <- 3
	r.Wait("the loss is an event", func() bool { return r.Get(doorbell.ID(5), event) != nil && event.GetAction() == "Resynchronised" })
	r.Wait("and counted", func() bool {
		return r.Get(name, status) != nil && status.GetLost() == 3 && status.GetMode() == "fentry" && status.GetRings() == 4
	})

	end()
	k.plugVdb()
	k.start(r)
	r.Wait("what came meanwhile is there", func() bool { return r.Get("vdb", disk) != nil })
	r.Wait("and it is said that events may be missing", func() bool { return r.Get(doorbell.ID(6), event) != nil && event.GetAction() == "Resynchronised" })
	if disk.GetIoErrors() != 0 {
		t.Errorf("the next disk of the number has %d errors", disk.GetIoErrors())
	}
}

// Where it has not rung nothing is read: in a storm of one device the others cost nothing. After a loss everything is.
func TestWhatHasRungIsLookedAt(t *testing.T) {
	k := newKernel(t)
	k.plugVdb()
	k.plug("virtual/block/loop0", map[string]string{"dev": "7:0\n", "uevent": "DEVNAME=loop0\n", "size": "8\n", "queue/logical_block_size": "512\n"})
	r := plugintest.Start(t, declared)
	k.start(r)
	vdb, vdb1, loop := &storagepb.Disk{}, &storagepb.Partition{}, &storagepb.Disk{}
	r.Wait("all are there", func() bool {
		return r.Get("vdb", vdb) != nil && r.Get("vdb1", vdb1) != nil && r.Get("loop0", loop) != nil
	})
	k.set("virtual/block/loop0/size", "16\n")
	k.set("pci0000:00/virtio2/block/vdb/size", "262144\n")
	k.set("pci0000:00/virtio2/block/vdb/vdb1/ro", "0\n")
	k.notes <- note{at: 1, what: resized, device: device{7, 0}, name: "loop0"}
	r.Wait("loop0 has another size", func() bool { return r.Get("loop0", loop) != nil && loop.GetSize() == 16*sector })
	if r.Get("vdb", vdb) == nil || vdb.GetSize() != 64<<20 {
		t.Errorf("vdb is %v; want it as it was when it rang", vdb)
	}
	k.notes <- note{at: 2, what: readOnly, device: device{254, 16}, name: "vdb"}
	r.Wait("a disk is looked at with its partitions", func() bool {
		return r.Get("vdb", vdb) != nil && vdb.GetSize() == 128<<20 && r.Get("vdb1", vdb1) != nil && !vdb1.GetReadOnly()
	})
	k.set("virtual/block/loop0/size", "24\n")
	k.lost <- 1
	r.Wait("everything is looked at", func() bool { return r.Get("loop0", loop) != nil && loop.GetSize() == 24*sector })
}

// A reader gets a medium: the kernel tells of it before it has looked at the medium, and PID 1 when it has.
func TestAMediumIsOneEvent(t *testing.T) {
	k := newKernel(t)
	r := plugintest.Start(t, declared)
	k.start(r)
	const path = "pci0/usb1/1-1/1-1:1.0/host3/target3/3:0:0:0/block/sda"
	k.plug(path, map[string]string{"dev": "8:0\n", "uevent": "DEVNAME=sda\n", "size": "0\n", "removable": "1\n", "queue/logical_block_size": "512\n"})
	disk, event := &storagepb.Disk{}, &eventspb.BlockEvent{}
	n := note{at: 7, what: changed, device: device{8, 0}, name: "sda"}
	k.notes <- n
	r.Wait("it is an event", func() bool { return r.Get(doorbell.ID(1), event) != nil })
	if r.Get("sda", disk) == nil || disk.GetSize() != 0 || !disk.GetRemovable() || event.GetAction() != "Changed" || event.GetDevice() != "sda" {
		t.Errorf("disk %v, event %v", disk, event)
	}
	if err := os.WriteFile(filepath.Join(k.sys, "devices", path, "size"), []byte("8\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	n.what = again
	k.notes <- n
	r.Wait("the size is there", func() bool { return r.Get("sda", disk) != nil && disk.GetSize() == 4096 })
	if r.Get(doorbell.ID(2), event) != nil {
		t.Errorf("one medium is also %v", event)
	}
}

func TestOnlyTheLastEventsAreKept(t *testing.T) {
	k := newKernel(t)
	r := plugintest.Start(t, declared)
	k.start(r)
	event := &eventspb.BlockEvent{}
	const kept, more = 1000, 20
	for n := range kept + more {
		k.notes <- note{at: time.Duration(n), what: changed, device: device{1, uint32(n)}, name: fmt.Sprintf("ram%d", n)}
	}
	r.Wait("the last is there", func() bool { return r.Get(doorbell.ID(kept+more), event) != nil })
	r.Wait("the first are gone", func() bool { return r.Get(doorbell.ID(more), event) == nil })
	if r.Get(doorbell.ID(more+1), event) == nil {
		t.Errorf("fewer than %d are kept", kept)
	}
}

func TestSerialAndTransport(t *testing.T) {
	for _, tc := range []struct {
		path              string
		attributes        map[string]string
		transport, serial string
	}{
		{"pci0/ata1/host0/target0:0:0/0:0:0:0/block/sda", map[string]string{"device/vpd_pg80": "\x00\x80\x00\x06AB 12 "}, "ata", "AB 12"},
		{"pci0/virtio1/host2/target2:0:0/2:0:0:0/block/sdb", map[string]string{"device/vpd_pg80": "\x00\x80\x00"}, "scsi", ""},
		{"pci0/usb1/1-1/1-1:1.0/host3/target3/3:0:0:0/block/sdc", map[string]string{"../../../../../../serial": "stick 7\n"}, "usb", "stick 7"},
		{"pci0/nvme/nvme0/nvme0n1", map[string]string{"device/serial": "S4\x00\x00"}, "nvme", "S4"},
		{"virtual/block/loop0", nil, "loop", ""},
	} {
		k := newKernel(t)
		name := filepath.Base(tc.path)
		k.plug(tc.path, map[string]string{"dev": "8:0\n", "uevent": "DEVNAME=" + name + "\n", "queue/logical_block_size": "512\n"})
		for file, text := range tc.attributes {
			file = filepath.Join(k.sys, "devices", tc.path, file)
			if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		w, err := look(k.sys)
		if d := w.disks[name]; err != nil || d.GetTransport() != tc.transport || d.GetSerial() != tc.serial {
			t.Errorf("%s: %v, %v; want transport %q, serial %q", tc.path, d, err, tc.transport, tc.serial)
		}
	}
}

func TestAMappedDeviceHasItsName(t *testing.T) {
	k := newKernel(t)
	k.plug("virtual/block/dm-0", map[string]string{"dev": "253:0\n", "uevent": "DEVNAME=dm-0\n", "queue/logical_block_size": "512\n", "dm/name": "vg-data\n"})
	w, err := look(k.sys)
	if d := w.disks["dm-0"]; err != nil || d.GetMapperName() != "vg-data" || d.GetTransport() != "dm" || d.GetDevice() != "/dev/dm-0" {
		t.Errorf("look = %v, %v; want the name vg-data", d, err)
	}
}

// A disk that the kernel is still at is not shown by half.
func TestADiskWithoutItsQueueIsNotThereYet(t *testing.T) {
	k := newKernel(t)
	k.plug("pci0/virtio2/block/vdb", map[string]string{"dev": "254:16\n", "uevent": "DEVNAME=vdb\n", "size": "8\n"})
	if w, err := look(k.sys); err != nil || len(w.disks) != 0 {
		t.Errorf("look = %v, %v; want no disk", w.disks, err)
	}
}

// The kernel of this machine has disks, too: each is found with a size of its own.
func TestLookAtThisMachine(t *testing.T) {
	entries, err := os.ReadDir("/sys/class/block")
	if err != nil || len(entries) == 0 {
		t.Skip("this machine shows no block device in /sys/class/block")
	}
	w, err := look("/sys")
	if err != nil || len(w.disks) == 0 || len(w.disks)+len(w.partitions) != len(entries) {
		t.Errorf("look = %d disks and %d partitions, %v; want %d devices", len(w.disks), len(w.partitions), err, len(entries))
	}
}
