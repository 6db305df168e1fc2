package vmtest_test

import (
	"encoding/binary"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	eventspb "github.com/cosi-os/cosi/api/cosi/events/v1alpha1"
	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	storagepb "github.com/cosi-os/cosi/api/cosi/storage/v1alpha1"
	"github.com/cosi-os/cosi/hack/vmtest"
	"github.com/cosi-os/cosi/tools/client"
)

// checkBlockEvents: disks may come and go as fast as they can, and requests to them fail; and so do devices that are in no socket.
func checkBlockEvents(t *testing.T, n *vmtest.Node, ebpf bool) {
	module := n.Apply(t, "metadata: {type: KernelModules.kernel.cosi.dev, id: dm_mod}\nspec: {}\n")
	mode, _ := byFunctions(t, n)
	if !ebpf {
		mode = "netlink"
	}
	generator(t, n, "block-events", mode)
	f := flicker{Node: n, ebpf: ebpf}
	t.Run("FullSpeed", f.fullSpeed)
	t.Run("Behind", f.behind)
	if ebpf {
		t.Run("IOErrors", func(t *testing.T) { checkIOErrors(t, n) })
	}
	n.Converged(t, module...)
	t.Run("Mapped", func(t *testing.T) { checkMapped(t, n, ebpf) })
	t.Run("Looped", func(t *testing.T) { checkLooped(t, n) })
}

// flicker has SCSI disks come and go. Each is on a target of its own, and has its number for a serial: the kernel, which may be behind, takes
// another disk on the same target for the one that it knows.
type flicker struct {
	*vmtest.Node
	ebpf bool
}

// prefix of their serial numbers.
const prefix = "flicker-"

// cycles is how often a disk comes and goes.
const cycles = 60

func (flicker) id(target int) string { return fmt.Sprintf("%s%d", prefix, target) }

// plug puts a disk in, whose content is a node of QEMU's block layer.
func (f flicker) plug(t *testing.T, target int, content map[string]any) {
	t.Helper()
	node := f.id(target) + "-drive"
	all := map[string]any{"node-name": node}
	maps.Copy(all, content)
	for _, command := range []struct {
		name      string
		arguments map[string]any
	}{
		{"blockdev-add", all},
		{"device_add", map[string]any{
			"driver": "scsi-hd", "bus": "scsi.0", "id": f.id(target), "serial": f.id(target), "drive": node, "scsi-id": target, "rerror": "report",
		}},
	} {
		if err := f.Monitor.Execute(f.Patience(t, moment), command.name, command.arguments, nil); err != nil {
			t.Fatal(err)
		}
	}
}

func (f flicker) unplug(t *testing.T, target int) {
	t.Helper()
	if err := f.Unplug(f.Patience(t, moment), f.id(target)); err != nil {
		t.Fatal(err)
	}
}

// zeros is the content of a disk.
var zeros = map[string]any{"driver": "null-co", "size": 16 << 20, "read-zeroes": true}

// fullSpeed: disks come and go as fast as QEMU takes the commands, a few at a time, since of one alone the kernel would see nothing. Each that it
// sees is told of once, and in the end Disks has those that stay.
func (f flicker) fullSpeed(t *testing.T) {
	const first, last, together = 0, cycles + 1, 8
	tally := f.tally(t)
	f.plug(t, first, zeros)
	before := f.has(t, first)[f.id(first)].GetDiskseq()
	began := time.Now()
	for target := first + 1; target < last+together; target++ {
		if target < last {
			f.plug(t, target, zeros)
		}
		if out := target - together; out > first {
			f.unplug(t, out)
		}
	}
	took := time.Since(began)
	f.plug(t, last, zeros)
	seen := f.has(t, first, last)[f.id(last)].GetDiskseq() - before + 1 // the kernel numbers disks
	f.unplug(t, first)
	f.unplug(t, last)
	f.has(t)
	c := tally(fmt.Sprintf("%d disks to come and go", seen), func(c counted) bool {
		return c.lost > 0 && !f.ebpf || c.actions["Added"] == seen && c.actions["Removed"] == seen && c.lost == 0
	})
	t.Logf("%d disks came and went in %s, the kernel saw %d; %v", cycles, took, seen-2, c)
}

// behind: while the generator is stopped a disk with partitions comes and goes, each time until the kernel has looked at it. Then it has fallen
// behind, and tells of many by one event, in which they are counted; or they were too many for the kernel to keep, and it looks at everything.
func (f flicker) behind(t *testing.T) {
	const first, last = 100, 100 + cycles
	tally := f.tally(t)
	gauge(t, f.Node, "stop-block", "kill: block-events, signal: SIGSTOP")
	content := map[string]any{"driver": "file", "filename": partitioned(t)}
	began := time.Now()
	for target := first; target <= last; target++ {
		f.plug(t, target, content)
		f.wasRead(t, target)
		if target < last {
			f.unplug(t, target)
		}
	}
	took := time.Since(began)
	gauge(t, f.Node, "continue-block", "kill: block-events, signal: SIGCONT")
	f.has(t, last)
	f.unplug(t, last)
	f.has(t)
	const devices = (1 + 2) * (cycles + 1) // a disk and its partitions
	c := tally(fmt.Sprintf("%d devices to come and go, in fewer events", devices), func(c counted) bool {
		return c.lost > 0 && !f.ebpf || c.actions["Added"] == devices && c.actions["Removed"] == devices && c.coalesced > 0 && c.lost == 0
	})
	t.Logf("%d disks came and went in %s; %v", cycles, took, c)
}

// partitioned is a disk with two partitions, for one user at a time.
func partitioned(t *testing.T) string {
	t.Helper()
	return mbr(t, partition{linux, 2048, 4096}, partition{linux, 8192, 4096})
}

// partition of an MBR, in sectors.
type partition struct {
	kind          byte
	start, length uint32
}

// Kinds of partitions.
const (
	extended = 0x05
	linux    = 0x83
)

// mbr makes the file of a disk of 16 MiB with partitions.
func mbr(t *testing.T, partitions ...partition) string {
	t.Helper()
	b := make([]byte, 512)
	for i, p := range partitions {
		entry := b[446+16*i:]
		entry[4] = p.kind
		binary.LittleEndian.PutUint32(entry[8:], p.start)
		binary.LittleEndian.PutUint32(entry[12:], p.length)
	}
	b[510], b[511] = 0x55, 0xaa
	file := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(file, 16<<20); err != nil {
		t.Fatal(err)
	}
	return file
}

// wasRead waits until the guest has read from a disk, as it does to find its partitions.
func (f flicker) wasRead(t *testing.T, target int) {
	t.Helper()
	patience := f.Patience(t, moment)
	for {
		var all []struct {
			Node  string `json:"node-name"`
			Stats struct {
				Reads int `json:"rd_operations"`
			}
		}
		if err := f.Monitor.Execute(patience, "query-blockstats", nil, &all); err != nil {
			t.Fatalf("disk %s: nobody has read it: %v", f.id(target), err)
		}
		for _, disk := range all {
			if disk.Node == f.id(target)+"-drive" && disk.Stats.Reads > 0 {
				return
			}
		}
		time.Sleep(5 * time.Millisecond) // QEMU has the guest to execute
	}
}

// has waits until Disks has the disks on these targets and no others of ours, and returns them by their serial numbers.
func (f flicker) has(t *testing.T, targets ...int) map[string]*storagepb.Disk {
	t.Helper()
	var want, have []string
	for _, target := range targets {
		want = append(want, f.id(target))
	}
	all, complete := map[string]*storagepb.Disk{}, false // by the kernel's names
	err := f.Client.Watch(f.Patience(t, moment), f.Kind(t, "disks"), "", &resourcepb.WatchOptions{BootstrapContents: true}, func(e *resourcepb.Event) error {
		name, disk := e.GetResource().GetMetadata().GetId(), &storagepb.Disk{}
		if err := proto.Unmarshal(e.GetResource().GetSpec().GetProtoSpec(), disk); err != nil {
			return err
		}
		switch e.GetEventType() {
		case resourcepb.EventType_BOOTSTRAPPED:
			complete = true
		case resourcepb.EventType_DESTROYED:
			delete(all, name)
		default:
			delete(all, name)
			if strings.HasPrefix(disk.GetSerial(), prefix) {
				all[name] = disk
			}
		}
		have = nil
		for _, d := range all {
			have = append(have, d.GetSerial())
		}
		slices.Sort(have)
		if complete && slices.Equal(have, want) {
			return client.ErrStop
		}
		return nil
	})
	if err != nil {
		t.Fatalf("disks %q: %v; want %q", have, err, want)
	}
	bySerial := map[string]*storagepb.Disk{}
	for _, d := range all {
		bySerial[d.GetSerial()] = d
	}
	return bySerial
}

// counted is what block-events has told in a time.
type counted struct {
	actions                map[string]uint64 // rings, by the action of the event that they are counted in
	rings, coalesced, lost uint64
}

func (c counted) String() string {
	return fmt.Sprintf("rings: %v, in all %d; %d share an event with others, %d were lost", c.actions, c.rings, c.coalesced, c.lost)
}

// tally counts from now on. The result waits until it is as wanted, and stays so. Each ring has to be in one event then, but those by which PID 1 asks for another
// look at what has been added, each that shares one counted as such, and a loss an event of its own.
func (f flicker) tally(t *testing.T) (result func(want string, is func(counted) bool) counted) {
	t.Helper()
	before, events := settled(t, f.Node), since(t, f.Node)
	return func(want string, is func(counted) bool) counted {
		t.Helper()
		last := ""
		for patience := f.Patience(t, moment); ; {
			c, wrong := count(before, settled(t, f.Node), events())
			if wrong == "" && is(c) && c.String() == last {
				return c
			}
			if patience.Err() != nil {
				t.Fatalf("%v; want %s. %s", c, want, wrong)
			}
			last = c.String() // the generator may seem to have settled while it writes events
		}
	}
}

// count is what has been told between two statuses, and what in that does not add up.
func count(before, after *eventspb.GeneratorStatus, events []*eventspb.BlockEvent) (c counted, wrong string) {
	c = counted{
		map[string]uint64{}, after.GetRings() - before.GetRings(), after.GetCoalesced() - before.GetCoalesced(), after.GetLost() - before.GetLost(),
	}
	var rings, shared uint64
	resynchronised := false
	for _, e := range events {
		if e.GetAction() == "Resynchronised" {
			resynchronised = true
			continue
		}
		n := max(e.GetCount(), 1)
		c.actions[e.GetAction()] += n
		rings, shared = rings+n, shared+n-1
	}
	if rings > c.rings || c.lost == 0 && rings+c.actions["Added"] < c.rings || shared != c.coalesced || resynchronised != (c.lost > 0) {
		wrong = fmt.Sprintf("The events are of %d rings, %d of which share one; resynchronised: %v", rings, shared, resynchronised)
	}
	return c, wrong
}

// since returns the events that have been written since it was called.
func since(t *testing.T, n *vmtest.Node) func() []*eventspb.BlockEvent {
	t.Helper()
	last := ""
	for _, r := range list(t, n, "blockevents") {
		last = max(last, r.GetMetadata().GetId())
	}
	return func() (events []*eventspb.BlockEvent) {
		t.Helper()
		for _, r := range list(t, n, "blockevents") {
			if r.GetMetadata().GetId() > last {
				e := &eventspb.BlockEvent{}
				decode(t, r, e)
				events = append(events, e)
			}
		}
		return events
	}
}

// checkIOErrors: a sector that cannot be read is an event, and counted in Disks.
func checkIOErrors(t *testing.T, n *vmtest.Node) {
	const target, bad, message = 200, 2048, "critical medium error, sector 2048"
	f, events := flicker{Node: n}, since(t, n)
	// Of an extended partition the kernel reads the first sector.
	f.plug(t, target, map[string]any{
		"driver": "blkdebug", "image": map[string]any{"driver": "file", "filename": mbr(t, partition{extended, bad, 4096})},
		"inject-error": []any{map[string]any{"event": "none", "iotype": "read", "sector": bad, "errno": int(unix.ENODATA), "once": false}},
	})
	disk := f.has(t, target)[f.id(target)]
	name := strings.TrimPrefix(disk.GetDevice(), "/dev/")
	for patience := n.Patience(t, moment); ; {
		settled(t, n)
		n.Get(t, "disks", name, disk)
		var failed uint64
		for _, e := range events() {
			if e.GetAction() != "IOError" {
				continue
			}
			failed += max(e.GetCount(), 1)
			if e.GetDevice() != name || e.GetMajor() != disk.GetMajor() || e.GetMinor() != disk.GetMinor() || e.GetSector() != bad || e.GetMessage() != message ||
				e.GetBoottimeNs() == 0 {
				t.Fatalf("event %v; want that sector %d of %v cannot be read", e, bad, disk)
			}
		}
		if failed > 0 && failed == disk.GetIoErrors() {
			break
		}
		if patience.Err() != nil { // Disks are written before the events
			t.Fatalf("%d events of errors, and %d in Disks; want as many", failed, disk.GetIoErrors())
		}
	}
	f.unplug(t, target)
	f.has(t)
}

// checkMapped: a device of the device mapper comes, becomes another size and read-only, and goes. That somebody makes it read-only by BLKROSET,
// which the kernel does not announce, is heard by eBPF alone.
func checkMapped(t *testing.T, n *vmtest.Node, ebpf bool) {
	const mib = 1 << 20
	events := since(t, n)
	disk := &storagepb.Disk{}
	device := ""
	for i, step := range []struct {
		mib      uint64
		readOnly bool
	}{{8, false}, {24, false}, {24, true}, {16, false}} {
		gauge(t, n, fmt.Sprintf("map-%d", i), fmt.Sprintf("mapped: {name: first, mib: %d, read_only: %v}", step.mib, step.readOnly))
		if device == "" {
			device = mapped(t, n, "first")
		}
		n.Until(t, "disks", device, disk, func(*resourcepb.Metadata) bool {
			return disk.GetSize() == step.mib*mib && disk.GetReadOnly() == step.readOnly
		})
	}
	if disk.GetTransport() != "dm" || disk.GetDevice() != "/dev/"+device || disk.GetLogicalBlockSize() == 0 {
		t.Errorf("disk %v", disk)
	}
	// With each table the kernel tells of another size, or if it is the same that something is different; before that if it is read-only now, or no
	// longer.
	want := []string{"Added", "Changed", "Resized", "ReadOnlyChanged", "Changed", "ReadOnlyChanged", "Resized"}
	if ebpf {
		protect(t, n, device, "mapped")
		want = append(want, "ReadOnlyChanged", "ReadOnlyChanged")
	}
	gauge(t, n, "unmap", "mapped: {name: first}")
	n.Until(t, "disks", device, &storagepb.Disk{}, func(m *resourcepb.Metadata) bool { return m == nil })
	if actions, want := history(t, n, events, disk), append(want, "Removed"); !slices.Equal(actions, want) {
		t.Errorf("events %q; want %q", actions, want)
	}
}

// mapped waits until Disks has the device of a name of the device mapper, and returns the kernel's name of it.
func mapped(t *testing.T, n *vmtest.Node, name string) (device string) {
	t.Helper()
	err := n.Client.Watch(n.Patience(t, moment), n.Kind(t, "disks"), "", &resourcepb.WatchOptions{BootstrapContents: true}, func(e *resourcepb.Event) error {
		disk := &storagepb.Disk{}
		if err := proto.Unmarshal(e.GetResource().GetSpec().GetProtoSpec(), disk); err != nil {
			return err
		}
		if disk.GetMapperName() != name {
			return nil
		}
		device = e.GetResource().GetMetadata().GetId()
		return client.ErrStop
	})
	if err != nil {
		t.Fatalf("device %q: %v", name, err)
	}
	return device
}

// protect has somebody make a device read-only by BLKROSET, and then writable again.
func protect(t *testing.T, n *vmtest.Node, device, id string) {
	t.Helper()
	for _, readOnly := range []bool{true, false} {
		gauge(t, n, fmt.Sprintf("%s-%v", id, readOnly), "protect: /dev/"+device)
		disk := &storagepb.Disk{}
		n.Until(t, "disks", device, disk, func(*resourcepb.Metadata) bool { return disk.GetReadOnly() == readOnly })
	}
}

// checkLooped: a loop device comes without a file, gets one, another one, and goes.
func checkLooped(t *testing.T, n *vmtest.Node) {
	const number, device, mib = 77, "loop77", 1 << 20
	events := since(t, n)
	disk := &storagepb.Disk{}
	for i, size := range []uint64{0, 8, 0, 24, 0} {
		medium := disk.GetDiskseq()
		gauge(t, n, fmt.Sprintf("loop-%d", i), fmt.Sprintf("loop: {number: %d, mib: %d}", number, size))
		n.Until(t, "disks", device, disk, func(m *resourcepb.Metadata) bool { return m != nil && disk.GetSize() == size*mib })
		if size > 0 && disk.GetDiskseq() <= medium || disk.GetTransport() != "loop" || disk.GetDevice() != "/dev/"+device || disk.GetLogicalBlockSize() == 0 {
			t.Errorf("disk %v; want a loop device, with another medium than that of number %d", disk, medium)
		}
	}
	gauge(t, n, "loop-gone", fmt.Sprintf("loop: {number: %d, gone: true}", number))
	n.Until(t, "disks", device, &storagepb.Disk{}, func(m *resourcepb.Metadata) bool { return m == nil })
	// Twice the kernel tells that a file has come, and twice, once for its medium and once for itself, that it has gone.
	want := slices.Concat([]string{"Added"}, slices.Repeat([]string{"Changed"}, 2+2*2), []string{"Removed"})
	if actions := history(t, n, events, disk); !slices.Equal(actions, want) {
		t.Errorf("events %q; want %q", actions, want)
	}
}

// history waits until a disk is told to be gone, and returns what has happened to it, in that order. Each has to be an event of its own.
func history(t *testing.T, n *vmtest.Node, events func() []*eventspb.BlockEvent, disk *storagepb.Disk) (actions []string) {
	t.Helper()
	e, device := &eventspb.BlockEvent{}, strings.TrimPrefix(disk.GetDevice(), "/dev/")
	await(t, n, "blockevents", e, func() bool { return e.GetAction() == "Removed" && e.GetDevice() == device })
	settled(t, n)
	for _, e := range events() {
		if e.GetDevice() != device {
			continue
		}
		if e.GetDeviceType() != "disk" || e.GetMajor() != disk.GetMajor() || e.GetMinor() != disk.GetMinor() || e.GetBoottimeNs() == 0 || e.GetCount() > 0 {
			t.Errorf("event %v; want it of %v", e, disk)
		}
		actions = append(actions, e.GetAction())
	}
	return actions
}

// checkLoop: when the process ends whose file a loop device is, it is empty.
func checkLoop(t *testing.T, n *vmtest.Node) {
	st := rage(t, n, "loop", "events: 1")
	hasSize(t, n, st)
	e := &eventspb.BlockEvent{}
	last := newest(t, n, "blockevents", e)
	gauge(t, n, "kill-storm", "kill: storm")
	await(t, n, "blockevents", e, func() bool {
		return e.GetAction() == "Changed" && e.GetDevice() == st.GetDevice() && e.GetBoottimeNs() > last
	})
	st.Size = 0
	hasSize(t, n, st)
}
