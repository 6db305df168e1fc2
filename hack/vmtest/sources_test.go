package vmtest_test

import (
	"crypto/sha256"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	machinepb "github.com/cosi-os/cosi/api/cosi/machine/v1alpha1"
	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	storagepb "github.com/cosi-os/cosi/api/cosi/storage/v1alpha1"
	"github.com/cosi-os/cosi/hack/vmtest"
	"github.com/cosi-os/cosi/tools/qemu"
	"github.com/cosi-os/cosi/tools/qemu/node"
)

// A node takes its user data from NoCloud disks, made as the tools of clouds make them: a virtio disk, which brings the certificates, and
// a CD, whose driver is loaded when the node serves already. And from a URL that nothing vouches for, which everybody is told.
func TestNoCloudDisks(t *testing.T) {
	vmtest.Parallel(t, 20)
	vmtest.Host(t)
	id, dir := vmtest.Identity(t), t.TempDir()
	data, err := id.UserData()
	if err != nil {
		t.Fatal(err)
	}
	disk, cd := seed(t, filepath.Join(dir, "disk"), string(data)), seed(t, filepath.Join(dir, "cd"), kept("cd"))
	server := httptest.NewServer(serves(kept("url")))
	defer server.Close()

	n := vmtest.Start(t, vmtest.Options{
		Boot: node.Kernel, Identity: id, NoUserData: true, CommandLine: "cosi.userdata=" + seenFromGuest(server),
		Disks: []qemu.Disk{{ID: "seed", File: disk, Format: "raw", ReadOnly: true}},
		Extra: []string{"-drive", "if=none,id=cd-drive,media=cdrom,format=raw,readonly=on,file=" + cd, "-device", "ide-cd,drive=cd-drive"},
	})
	n.Ready(t)
	checkSource(t, n, "cidata-vdb", "", false)
	checkSource(t, n, "cidata-sr0", "cd", false)
	checkSource(t, n, "url", "url", true)
	n.Expect(t, 0, `user data url: Applied, 1 of 1 documents, unauthenticated`)
	n.PressPower(t)
}

// seed makes a NoCloud disk with text as user data.
func seed(t *testing.T, dir, text string) string {
	t.Helper()
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	writeText(t, filepath.Join(dir, "user-data"), text)
	writeText(t, filepath.Join(dir, "meta-data"), "instance-id: test\n")
	judged(t, "xorriso", "-as", "genisoimage", "-quiet", "-output", dir+".iso", "-volid", "cidata", "-joliet", "-rock", dir)
	return dir + ".iso"
}

// A URL may be http, and what it brings is believed, when the kernel argument says its digest.
func TestURLWithItsDigest(t *testing.T) {
	vmtest.Parallel(t, 15)
	server := httptest.NewServer(serves(kept("url")))
	defer server.Close()
	n := vmtest.Start(t, vmtest.Options{
		Boot: node.Kernel, CommandLine: fmt.Sprintf("cosi.userdata=%s#sha256=%x", seenFromGuest(server), sha256.Sum256([]byte(kept("url")))),
	})
	n.Ready(t)
	checkSource(t, n, "url", "url", false)
	n.Expect(t, 0, `user data url: Applied, 1 of 1 documents\r?\n`)
	n.PressPower(t)
}

// checkSource waits until the node has applied a source and the MountPoint in it, unless that is "".
func checkSource(t *testing.T, n *vmtest.Node, source, mount string, unauthenticated bool) {
	t.Helper()
	status := &machinepb.UserDataSource{}
	n.Until(t, "userdatasources", source, status, func(*resourcepb.Metadata) bool { return status.GetState() != "" })
	if status.GetState() != "Applied" || status.GetApplied() != 1 || status.GetUnauthenticated() != unauthenticated {
		t.Errorf("the source %s: %v; want it applied, unauthenticated %v", source, status, unauthenticated)
	}
	if mount == "" {
		return
	}
	m := n.Get(t, "mountpoints", mount, &storagepb.MountPoint{})
	if provenance := m.GetAnnotations()["cosi.dev/provenance"]; !strings.HasPrefix(provenance, "userdata/"+source+"@") {
		t.Errorf("MountPoint %s is from %q; want %s", mount, provenance, source)
	}
}
