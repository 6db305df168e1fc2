package vmtest_test

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	machinepb "github.com/cosi-os/cosi/api/cosi/machine/v1alpha1"
	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	storagepb "github.com/cosi-os/cosi/api/cosi/storage/v1alpha1"
	"github.com/cosi-os/cosi/api/layout/gpt"
	"github.com/cosi-os/cosi/hack/vmtest"
	"github.com/cosi-os/cosi/tools/qemu"
)

// sealedBy is the policy of what such an image seals.
const sealedBy = "PCR 7 and a signed PCR 11"

// checkSealed fails the test unless the node's state is sealed and was opened by the TPM.
func checkSealed(t *testing.T, n *vmtest.Node) {
	t.Helper()
	v, state := &storagepb.VolumeStatus{}, &machinepb.StateStatus{}
	n.Until(t, "volumestatuses", "state", v, func(m *resourcepb.Metadata) bool { return m != nil })
	n.Get(t, "state", "state", state)
	if !v.GetReady() || !v.GetSealed() || v.GetPolicy() != sealedBy || v.GetUnlockedBy() != "tpm" || !state.GetDurable() {
		t.Errorf("the state's volume: %v; the state: %v; want it sealed, opened by the TPM and durable", v, state)
	}
}

// secret is what must not be found on a disk.
const secret = "what nobody finds on a disk"

// A node's state and a data volume are sealed on the first boot and opened by the next one. With another TPM nothing is opened, until it is told the
// recovery keys, which open the volumes on any Linux, too.
func TestVolumesAreSealed(t *testing.T) {
	if os.Getenv("COSI_TEST_BOOTS") != "all" {
		t.Skip("COSI_TEST_BOOTS is not all (make test-boot)")
	}
	vmtest.Parallel(t, 200)
	vmtest.Host(t)
	id, dir := vmtest.Identity(t), t.TempDir()
	data, err := id.UserData()
	if err != nil {
		t.Fatal(err)
	}
	url, ca := serveTLS(t, string(data))
	image := buildImage(t, dir, ca, "cosi.userdata="+url)
	disk := qemu.Disk{ID: "data", File: filepath.Join(dir, "data"), Format: "raw"}
	writeText(t, disk.File, "")
	for file, size := range map[string]int64{image: 1 << 30, disk.File: 200 << 20} {
		if err := os.Truncate(file, size); err != nil {
			t.Fatal(err)
		}
	}
	start := func() *vmtest.Node {
		return vmtest.Start(t, vmtest.Options{File: image, Keep: true, Identity: id, NoUserData: true, Disks: []qemu.Disk{disk}, Extra: startTPM(t)})
	}
	keys := sealFirst(t, start())
	for file, key := range map[string]string{statePartition(t, image): keys["state"], disk.File: keys["data"]} {
		passphrase := filepath.Join(dir, "passphrase")
		writeText(t, passphrase, key)
		judged(t, "cryptsetup", "open", "--test-passphrase", "--key-file", passphrase, file)
		if raw, err := os.ReadFile(file); err != nil || bytes.Contains(raw, []byte(secret)) || bytes.Contains(raw, []byte("sealed-marker")) {
			t.Errorf("%s: what was written down is on the disk as it is, or %v", file, err)
		}
	}
	recovered(t, start(), keys)
}

// sealFirst boots a node for the first time and once more, and returns its recovery keys.
func sealFirst(t *testing.T, n *vmtest.Node) map[string]string {
	t.Helper()
	n.Ready(t)
	checkSealed(t, n)
	n.Apply(t, `metadata: {type: volume, id: data}
spec: {source: /dev/vdb, format: ext4}
---
metadata: {type: mountpoint, id: data}
spec: {source: /dev/mapper/data, target: /var/data, fstype: ext4}
---
metadata: {type: mountpoint, id: sealed-marker, annotations: {note: `+secret+`}}
spec: {source: tmpfs, target: /var/sealed-marker, fstype: tmpfs}
`)
	mount, keys, v := &storagepb.MountPointStatus{}, map[string]string{}, &storagepb.VolumeStatus{}
	n.Until(t, "volumestatuses", "data", v, func(*resourcepb.Metadata) bool { return v.GetReason() == "Open" && v.GetPolicy() == sealedBy })
	n.Until(t, "mountpointstatuses", "data", mount, func(*resourcepb.Metadata) bool { return mount.GetReady() })
	key := &storagepb.RecoveryKey{}
	for _, volume := range []string{"state", "data"} {
		n.Until(t, "recoverykeys", volume, key, func(m *resourcepb.Metadata) bool { return m != nil })
		keys[volume] = key.GetKey()
	}
	answer := &storagepb.VolumeUnlockStatus{}
	n.Apply(t, fmt.Sprintf("metadata: {type: unlock, id: data}\nspec: {recovery_key: %s}\n", keys["data"]))
	n.Until(t, "unlockstatus", "data", answer, func(*resourcepb.Metadata) bool { return answer.GetReason() == "KeyIsRight" })
	n.Until(t, "recoverykeys", "data", key, func(m *resourcepb.Metadata) bool { return m == nil })

	n.Apply(t, "metadata: {type: shutdown, id: again}\nspec: {action: REBOOT}\n")
	n.Expect(t, 0, `reboot: Restarting system`)
	n.Ready(t)
	checkSealed(t, n)
	n.Until(t, "mountpointstatuses", "data", mount, func(*resourcepb.Metadata) bool { return mount.GetReady() })
	if n.Get(t, "recoverykeys", "state", key) != nil {
		t.Error("the recovery key is shown after a reboot")
	}
	n.PressPower(t)
	return keys
}

// recovered boots the node with another TPM, and unlocks it.
func recovered(t *testing.T, n *vmtest.Node, keys map[string]string) {
	t.Helper()
	n.Expect(t, 0, `not ready because the state is locked`)
	n.Serves(t)
	v, state := &storagepb.VolumeStatus{}, &machinepb.StateStatus{}
	n.Until(t, "volumestatuses", "state", v, func(m *resourcepb.Metadata) bool { return m != nil })
	if n.Get(t, "state", "state", state); v.GetReason() != "Locked" || v.GetReady() || state.GetReason() != "Locked" || !state.GetFrozen() {
		t.Errorf("with another TPM: %v, %v; want both locked", v, state)
	}
	if n.Get(t, "mountpoints", "sealed-marker", &storagepb.MountPoint{}) != nil {
		t.Error("what was kept is there, and the TPM has not opened it")
	}
	answer := &storagepb.VolumeUnlockStatus{}
	n.Apply(t, fmt.Sprintf("metadata: {type: unlock, id: state}\nspec: {recovery_key: %s}\n", keys["data"]))
	n.Until(t, "unlockstatus", "state", answer, func(*resourcepb.Metadata) bool { return answer.GetReason() != "" })
	if answer.GetReason() != "WrongKey" {
		t.Errorf("by the key of another volume: %v", answer)
	}
	from := n.Console.Position()
	n.Apply(t, fmt.Sprintf("metadata: {type: unlock, id: state}\nspec: {recovery_key: %s}\n", keys["state"]))
	n.Expect(t, from, `reboot: Restarting system`)
	n.Ready(t)
	checkSealed(t, n)
	if n.Get(t, "mountpoints", "sealed-marker", &storagepb.MountPoint{}) == nil {
		t.Error("what was kept is gone")
	}
	n.Until(t, "volumestatuses", "data", v, func(*resourcepb.Metadata) bool { return v.GetReason() == "Locked" })
	n.Apply(t, fmt.Sprintf("metadata: {type: unlock, id: data}\nspec: {recovery_key: %s}\n", keys["data"]))
	mount := &storagepb.MountPointStatus{}
	n.Until(t, "mountpointstatuses", "data", mount, func(*resourcepb.Metadata) bool { return mount.GetReady() })
	n.PressPower(t)
}

// statePartition copies the state partition of a disk into a file of its own.
func statePartition(t *testing.T, image string) string {
	t.Helper()
	f, err := os.Open(image)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	table, err := gpt.Read(f, 1<<30)
	if err != nil || len(table.Partitions) != 5 {
		t.Fatalf("the table: %+v, %v", table, err)
	}
	p := table.Partitions[4]
	out, err := os.Create(filepath.Join(t.TempDir(), "state"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	if _, err := io.Copy(out, io.NewSectionReader(f, p.Start, p.End-p.Start)); err != nil {
		t.Fatal(err)
	}
	return out.Name()
}
