package blockevents

import (
	"fmt"
	"testing"
	"time"

	eventspb "github.com/cosi-os/cosi/api/cosi/events/v1alpha1"
	storagepb "github.com/cosi-os/cosi/api/cosi/storage/v1alpha1"
	"github.com/cosi-os/cosi/engine/runtime/plugintest"
	"github.com/cosi-os/cosi/plugins/internal/doorbell"
	"github.com/cosi-os/cosi/plugins/internal/doorbell/doorbelltest"
)

// TestWithoutNetlink: what has come and gone is seen when it is looked for.
func TestWithoutNetlink(t *testing.T) {
	k := newKernel(t)
	r := plugintest.Start(t, declared)
	k.startWith(r, doorbelltest.Refused(sources(k.sys, 10*time.Millisecond)))
	doorbelltest.Fallen(t, r, name, doorbell.Poll, "fentry", "kprobe", "netlink")
	event := &eventspb.BlockEvent{}
	wait := func(number uint64, action, device string) {
		t.Helper()
		r.Wait(action+" "+device, func() bool { return r.Get(doorbell.ID(number), event) != nil })
		if event.GetAction() != action || event.GetDevice() != device || event.GetBoottimeNs() == 0 || event.GetMajor() != 254 {
			t.Errorf("event %v; want %s %s", event, action, device)
		}
	}
	k.plug("virtual/block/vdc", map[string]string{
		"dev": "254:32\n", "uevent": "MAJOR=254\nMINOR=32\nDEVNAME=vdc\nDEVTYPE=disk\n", "size": "8\n", "ro": "0\n", "queue/logical_block_size": "512\n",
	})
	wait(1, "Added", "vdc")
	if disk := (&storagepb.Disk{}); r.Get("vdc", disk) == nil || disk.GetSize() != 4096 {
		t.Errorf("disk %v; want the one that has come", disk)
	}
	k.unplug("vdc")
	wait(2, "Removed", "vdc")
}

func TestSince(t *testing.T) {
	disk := func(minor uint32, size, seq uint64, ro bool) *storagepb.Disk {
		return &storagepb.Disk{Major: 254, Minor: minor, Size: size, Diskseq: seq, ReadOnly: ro}
	}
	of := func(minor uint32) *storagepb.Partition {
		return &storagepb.Partition{Major: 254, Minor: minor, Disk: "vda"}
	}
	before := world{map[string]*storagepb.Disk{"vda": disk(0, 1, 1, false), "vdb": disk(16, 1, 2, false), "vdc": disk(32, 1, 3, false)}, map[string]*storagepb.Partition{"vda1": of(1)}}
	now := world{map[string]*storagepb.Disk{"vda": disk(0, 1, 4, false), "vdb": disk(16, 2, 2, true), "vdd": disk(48, 1, 5, false)}, map[string]*storagepb.Partition{"vda1": of(1)}}
	want := "Removed vdc, Removed vda1, Removed vda, Added vda, Added vda1, Resized vdb, ReadOnlyChanged vdb, Added vdd"
	var got string
	for i, n := range now.since(before, 7) {
		if i > 0 {
			got += ", "
		}
		got += fmt.Sprint(actions[n.what], " ", n.name)
		if n.at != 7 || n.partition != (n.name == "vda1") {
			t.Errorf("note %+v", n)
		}
	}
	if got != want {
		t.Errorf("since = %s; want %s", got, want)
	}
	if same := now.since(now, 8); len(same) > 0 {
		t.Errorf("since itself %+v; want nothing", same)
	}
}
