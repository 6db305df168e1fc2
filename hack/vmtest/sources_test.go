package vmtest_test

import (
	"os"
	"path/filepath"
	"testing"

	machinepb "github.com/cosi-os/cosi/api/cosi/machine/v1alpha1"
	"github.com/cosi-os/cosi/hack/vmtest"
	"github.com/cosi-os/cosi/tools/qemu"
)

// A node that boots from the ISO takes its user data from a NoCloud disk, made as the tools of clouds make it.
func TestNoCloudDisk(t *testing.T) {
	id, dir := vmtest.Identity(t), t.TempDir()
	data, err := id.UserData()
	if err != nil {
		t.Fatal(err)
	}
	seed, disk := filepath.Join(dir, "seed"), filepath.Join(dir, "seed.iso")
	if err := os.Mkdir(seed, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string][]byte{"user-data": data, "meta-data": []byte("instance-id: test\n")} {
		if err := os.WriteFile(filepath.Join(seed, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	judged(t, "xorriso", "-as", "genisoimage", "-quiet", "-output", disk, "-volid", "cidata", "-joliet", "-rock", seed)

	n := vmtest.Start(t, vmtest.Options{
		Format: "iso", Identity: id, NoUserData: true,
		Disks: []qemu.Disk{{ID: "seed", File: disk, Format: "raw", ReadOnly: true}},
	})
	n.Ready(t)
	source := &machinepb.UserDataSource{}
	if n.Get(t, "userdatasources", "cidata-vda", source) == nil || source.GetState() != "Applied" || source.GetApplied() != 1 {
		t.Errorf("the disk as a source: %v", source)
	}
	n.PressPower(t)
}
