package vmtest_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	machinepb "github.com/cosi-os/cosi/api/cosi/machine/v1alpha1"
	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	storagepb "github.com/cosi-os/cosi/api/cosi/storage/v1alpha1"
	"github.com/cosi-os/cosi/api/layout/gpt"
	"github.com/cosi-os/cosi/hack/vmtest"
	"github.com/cosi-os/cosi/tools/qemu/node"
)

const (
	mib = 1 << 20
	gib = 1 << 30
)

// keeper is a node that keeps its state on its disk, from boot to boot.
type keeper struct {
	file     string
	identity *node.Identity
	outside  *outside
	*vmtest.Node
}

// boot starts the node from its disk.
func (k *keeper) boot(t *testing.T) {
	t.Helper()
	k.Node = vmtest.Start(t, vmtest.Options{File: k.file, Keep: true, Identity: k.identity, Documents: kept("userdata")})
	k.Ready(t)
}

// kept is a document that needs nothing to be mounted.
func kept(id string) string {
	return fmt.Sprintf("metadata: {type: MountPoints.storage.cosi.dev, id: %s}\nspec: {source: tmpfs, target: /var/%s, fstype: tmpfs}\n", id, id)
}

func (k *keeper) state(t *testing.T) *machinepb.StateStatus {
	t.Helper()
	s := &machinepb.StateStatus{}
	if k.Get(t, "state", "state", s) == nil {
		t.Fatal("the node does not say where it keeps its state")
	}
	return s
}

func (k *keeper) has(t *testing.T, id string) bool {
	t.Helper()
	return k.Get(t, "mountpoints", id, &storagepb.MountPoint{}) != nil
}

// TestState follows one disk through the life of a node: the first boot makes the state partition, power is lost, the disk grows,
// the file system is damaged, and somebody resets it.
func TestState(t *testing.T) {
	vmtest.Parallel(t, 230)
	vmtest.Host(t)
	k := &keeper{file: vmtest.SystemDisk(t, "test", 2*gib), identity: vmtest.Identity(t), outside: buildOutside(t)}

	k.boot(t)
	if s := k.state(t); !s.GetDurable() || s.GetDevice() != "/dev/vda5" {
		t.Fatalf("state on the first boot: %v", s)
	}
	k.Apply(t, kept("acknowledged"))
	k.Delete(t, "mountpoints", "userdata")
	k.Kill() // as if the plug were pulled
	k.judge(t, 2*gib, true)

	k.boot(t)
	if !k.has(t, "acknowledged") {
		t.Error("what was acknowledged before the power was lost is gone")
	}
	if k.has(t, "userdata") {
		t.Error("user data has brought back what was deleted over the API")
	}
	k.PressPower(t)
	k.judge(t, 2*gib, false)

	if err := os.Truncate(k.file, 9*gib); err != nil { // another block of group descriptors
		t.Fatal(err)
	}
	k.boot(t)
	if !k.has(t, "acknowledged") {
		t.Error("what was acknowledged is gone from the larger disk")
	}
	k.PressPower(t)
	k.judge(t, 9*gib, false)

	k.damage(t)
	k.damagedAndReset(t)
}

// damagedAndReset: the node serves, refuses what it could not keep, and starts afresh when it is told to.
func (k *keeper) damagedAndReset(t *testing.T) {
	k.Node = vmtest.Start(t, vmtest.Options{File: k.file, Keep: true, Identity: k.identity, Documents: kept("userdata")})
	k.Expect(t, 0, `not ready because the state is damaged`)
	k.Serves(t)
	if s := k.state(t); s.GetDurable() || s.GetReason() != "StateDamaged" || s.GetFile() != "/dev/vda5" {
		t.Errorf("state: %v; want it damaged", s)
	}
	if k.has(t, "acknowledged") || !k.has(t, "userdata") {
		t.Error("the node has not started from its user data")
	}
	kind := k.Kind(t, "mountpoints")
	r := &resourcepb.Resource{
		Metadata: &resourcepb.Metadata{Namespace: kind.Namespace(), Type: kind.Type(), Id: "refused", Version: "1", Phase: "running"},
		Spec:     &resourcepb.Spec{YamlSpec: "{source: tmpfs, target: /var/refused, fstype: tmpfs}"},
	}
	if _, _, err := k.Client.Apply(k.Patience(t, patience), kind, r); err == nil || !strings.Contains(err.Error(), "cosictl reset state") {
		t.Errorf("a write to config: %v; want that it is refused, and what to do", err)
	}
	from := k.Console.Position()
	k.outside.connect(t, k.Node)
	k.outside.cosictl(t, "reset", "state", "--confirm", "cosi", "--reason", "test")
	k.Expect(t, from, `the state is formatted at the next boot: test`)
	k.Expect(t, from, `reboot: Restarting system`)
	k.Ready(t)
	if s := k.state(t); !s.GetDurable() || k.has(t, "acknowledged") || !k.has(t, "userdata") {
		t.Errorf("after the reset: %v; want a state that is kept, with the user data alone", s)
	}
	k.PressPower(t)
	k.judge(t, 9*gib, false)
}

// partition finds the state partition of the disk.
func (k *keeper) partition(t *testing.T) gpt.Partition {
	t.Helper()
	file, err := os.Open(k.file)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		t.Fatal(err)
	}
	table, err := gpt.Read(file, info.Size())
	if err != nil {
		t.Fatal(err)
	}
	if len(table.Partitions) != 5 || table.Partitions[4].Type != gpt.State || table.Partitions[4].Name != "state" {
		t.Fatalf("partitions: %+v", table.Partitions)
	}
	return table.Partitions[4]
}

// judge asks sgdisk about the table, and e2fsck about the file system, on a copy whose journal was replayed if the power was cut.
func (k *keeper) judge(t *testing.T, size int64, cut bool) {
	t.Helper()
	p := k.partition(t)
	if p.Start != 770*mib || p.End != size-mib {
		t.Errorf("the state partition is from %d to %d MiB of %d", p.Start/mib, p.End/mib, size/mib)
	}
	if out, err := exec.Command("/sbin/sgdisk", "-v", k.file).CombinedOutput(); err != nil || !strings.Contains(string(out), "No problems found") {
		t.Errorf("sgdisk: %v\n%s", err, out)
	}
	fs := filepath.Join(t.TempDir(), "state.ext4")
	copied := exec.Command("dd", "if="+k.file, "of="+fs, "bs=1M", fmt.Sprint("skip=", p.Start/mib), fmt.Sprint("count=", (p.End-p.Start)/mib), "conv=sparse")
	if out, err := copied.CombinedOutput(); err != nil {
		t.Fatalf("dd: %v\n%s", err, out)
	}
	if cut { // the journal is replayed, as the node does
		exec.Command("/sbin/e2fsck", "-p", fs).Run()
	}
	out, err := exec.Command("/sbin/e2fsck", "-fn", fs).CombinedOutput()
	if err != nil || strings.Contains(string(out), "Fix") || strings.Contains(string(out), "Warning") {
		t.Errorf("e2fsck: %v\n%s", err, out)
	}
	about, err := exec.Command("/sbin/dumpe2fs", "-h", fs).CombinedOutput()
	var blocks int64
	for line := range strings.Lines(string(about)) {
		fmt.Sscanf(line, "Block count: %d", &blocks)
	}
	if missing := (p.End-p.Start)/4096 - blocks; err != nil || missing < 0 || missing > 32*mib/4096 {
		t.Errorf("the file system has %d blocks, %d fewer than the partition (%v)", blocks, missing, err)
	}
}

// damage puts an end to the file system.
func (k *keeper) damage(t *testing.T) {
	t.Helper()
	start := k.partition(t).Start
	file, err := os.OpenFile(k.file, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if _, err := file.WriteAt([]byte(strings.Repeat("garbage ", 256)), start+512); err != nil {
		t.Fatal(err)
	}
}
