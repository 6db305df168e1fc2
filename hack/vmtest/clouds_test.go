package vmtest_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	machinepb "github.com/cosi-os/cosi/api/cosi/machine/v1alpha1"
	"github.com/cosi-os/cosi/hack/vmtest"
	"github.com/cosi-os/cosi/tools/qemu/node"
)

// cloud is a place where the cloud image boots: one of its files, on a machine as much like the platform's own as QEMU has. What is missing there
// are ENA, gVNIC and Hyper-V's VMBus; TestCloudImageHasEveryDriver looks for their drivers.
type cloud struct {
	name     string
	file     string // the suffix of the output
	member   string // in an archive: the file that is the disk
	format   string // QEMU's name for it
	boot     node.Boot
	disk     []string // the controller and the disk of the drive "system"
	smbios   string   // what the machine says of itself
	nic      string   // "": virtio
	metadata func(data []byte) http.Handler
	medium   string // a CD with user data, by its label
	source   string // the UserDataSource that is applied
	open     bool   // it is not authenticated
}

var (
	onNVMe       = []string{"-device", "nvme,drive=system,serial=system,bootindex=1"}
	onVirtioSCSI = []string{"-device", "virtio-scsi-pci,id=bus", "-device", "scsi-hd,bus=bus.0,drive=system,bootindex=1"}
	onVirtio     = []string{"-device", "virtio-blk-pci,drive=system,bootindex=1"}
	onPVSCSI     = []string{"-device", "pvscsi,id=bus", "-device", "scsi-hd,bus=bus.0,drive=system,bootindex=1"}
)

const (
	ec2    = "type=1,manufacturer=Amazon EC2,product=m7i.large"
	azure  = "type=3,manufacturer=Microsoft Corporation,asset=7783-7084-3265-9085-8269-3286-77"
	google = "type=1,manufacturer=Google,product=Google Compute Engine"
	nova   = "type=1,manufacturer=OpenStack Foundation,product=OpenStack Nova"
	esxi   = "type=1,manufacturer=VMware,, Inc.,product=VMware7,,1"
)

var clouds = []cloud{
	{name: "AWS", file: "raw", format: "raw", disk: onNVMe, smbios: ec2, metadata: instanceMetadata, source: "aws"},
	{name: "Azure", file: "vhd", format: "vpc", disk: onVirtioSCSI, smbios: azure, metadata: azureMetadata, source: "azure"},
	{name: "Google", file: "gcp.tar.gz", member: "disk.raw", format: "raw", disk: onVirtioSCSI, smbios: google, metadata: googleMetadata, source: "gcp"},
	{name: "OpenStack", file: "qcow2", format: "qcow2", boot: node.BIOS, disk: onVirtio, smbios: nova, metadata: novaMetadata, source: "openstack", open: true},
	{name: "OpenStack with a config drive", file: "qcow2", format: "qcow2", disk: onVirtio, smbios: nova, medium: "config-2", source: "config-drive-sr0"},
	// QEMU's vmport knows no messages, by which VMware tells what guestinfo has, and its processor is not VMware's: user data is on a disk.
	{name: "VMDK on VMware", file: "vmdk", format: "vmdk", boot: node.BIOS, disk: onPVSCSI, smbios: esxi, nic: "vmxnet3", medium: "cidata", source: "cidata-sr0"},
	// Debian's UEFI firmware for QEMU does not know the paravirtual SCSI host, as VMware's does.
	{name: "OVA on VMware", file: "ova", member: "cosi-cloud-amd64.vmdk", format: "vmdk", disk: onNVMe, smbios: esxi, nic: "vmxnet3", medium: "cidata", source: "cidata-sr0"},
}

// Every file for a cloud boots, and the node answers those whom its user data lets in, which it has from where that cloud keeps it.
func TestCloudsBoot(t *testing.T) {
	if os.Getenv("COSI_TEST_BOOTS") != "all" {
		t.Skip("boots each file for a cloud, with COSI_TEST_BOOTS=all: make test-boot")
	}
	if os.Getenv(inNamespace) == "" {
		again(t)
		return
	}
	ownAddresses(t, metadataAddress, wireAddress)
	for _, c := range clouds {
		t.Run(c.name, c.test)
	}
}

func (c cloud) test(t *testing.T) {
	dir, id := t.TempDir(), vmtest.Identity(t)
	data, err := id.UserData()
	if err != nil {
		t.Fatal(err)
	}
	image := vmtest.Image(t, "cloud", c.file)
	if c.member != "" {
		judged(t, "tar", "-xf", image, "-C", dir, c.member)
		image = filepath.Join(dir, c.member)
	}
	arguments := append([]string{"-drive", fmt.Sprintf("if=none,id=system,snapshot=on,format=%s,file=%s", c.format, image), "-smbios", c.smbios}, c.disk...)
	o := vmtest.Options{NoImage: true, Boot: c.boot, Identity: id, NoUserData: true}
	if c.nic != "" { // the other card leads nowhere
		o.Backend = "nowhere"
		arguments = append(arguments, "-netdev", "hubport,hubid=0,id=nowhere", "-device", c.nic+",netdev=net0,romfile=")
	}
	if c.medium != "" {
		arguments = append(arguments, "-drive", "if=none,id=medium,media=cdrom,format=raw,readonly=on,file="+c.userDataCD(t, dir, data), "-device", "ide-cd,drive=medium")
	}
	o.Extra = arguments
	var ready <-chan struct{}
	if c.metadata != nil {
		serveAt(t, metadataAddress, busyFirst(c.metadata(data)))
	}
	if c.source == "azure" {
		ready = serveWire(t)
	}
	n := vmtest.Start(t, o)
	n.Ready(t)
	suffix := `\r?\n`
	if c.open {
		suffix = `, unauthenticated`
	}
	n.Expect(t, 0, `user data `+c.source+`: Applied, 1 of 1 documents`+suffix)
	status := &machinepb.UserDataSource{}
	n.Get(t, "userdatasources", c.source, status)
	if status.GetState() != "Applied" || status.GetUnauthenticated() != c.open {
		t.Errorf("the source: %v", status)
	}
	if ready != nil {
		select {
		case <-ready:
		case <-n.Patience(t, moment).Done():
			t.Error("the node has not told Azure that it is ready")
		}
	}
	n.PressPower(t)
}

// userDataCD makes what the platform would: a config drive or a NoCloud disk.
func (c cloud) userDataCD(t *testing.T, dir string, data []byte) string {
	t.Helper()
	if c.medium == "cidata" {
		return seed(t, filepath.Join(dir, "cd"), string(data))
	}
	latest := filepath.Join(dir, "cd", "openstack", "latest")
	if err := os.MkdirAll(latest, 0o700); err != nil {
		t.Fatal(err)
	}
	writeText(t, filepath.Join(latest, "user_data"), string(data))
	writeText(t, filepath.Join(latest, "meta_data.json"), `{"uuid": "83679162-1378-4288-a2d4-70e13ec132aa", "name": "node"}`)
	cd := filepath.Join(dir, "cd.iso")
	judged(t, "xorriso", "-as", "genisoimage", "-quiet", "-output", cd, "-volid", c.medium, "-joliet", "-rock", filepath.Join(dir, "cd"))
	return cd
}

// ownAddresses gives this network namespace addresses that QEMU's user-mode network leads the node's requests to.
func ownAddresses(t *testing.T, all ...string) {
	t.Helper()
	link, err := netlink.LinkByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range all {
		if err := netlink.AddrAdd(link, &netlink.Addr{IPNet: &net.IPNet{IP: net.ParseIP(a).To4(), Mask: net.CIDRMask(32, 32)}}); err != nil {
			t.Fatal(err)
		}
	}
	if err := netlink.LinkSetUp(link); err != nil {
		t.Fatal(err)
	}
}

// serveAt serves HTTP at an address of this network namespace while the test runs.
func serveAt(t *testing.T, address string, h http.Handler) {
	t.Helper()
	l, err := net.Listen("tcp", net.JoinHostPort(address, "80"))
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: h}
	done := make(chan error)
	go func() { done <- server.Serve(l) }()
	t.Cleanup(func() { server.Shutdown(context.Background()); <-done })
}

// Other people's programs are content with the files, which hold one disk, and they are as small as they should be.
func TestCloudFiles(t *testing.T) {
	if os.Getenv("COSI_TEST_BOOTS") != "all" {
		t.Skip("judges the image of cloud.yaml, with COSI_TEST_BOOTS=all: make test-boot")
	}
	dir, raw := t.TempDir(), vmtest.Image(t, "cloud", "raw")
	judged(t, "tar", "-xf", vmtest.Image(t, "cloud", "ova"), "-C", dir)
	judged(t, "tar", "-xf", vmtest.Image(t, "cloud", "gcp.tar.gz"), "-C", dir)
	judged(t, "cmp", vmtest.Image(t, "cloud", "vmdk"), filepath.Join(dir, "cosi-cloud-amd64.vmdk"))
	for format, file := range map[string]string{
		"qcow2": vmtest.Image(t, "cloud", "qcow2"), "vmdk": vmtest.Image(t, "cloud", "vmdk"), "vpc": vmtest.Image(t, "cloud", "vhd"), "raw": filepath.Join(dir, "disk.raw"),
	} {
		if out := judged(t, "qemu-img", "compare", "-f", "raw", "-F", format, raw, file); !strings.Contains(out, "Images are identical") {
			t.Errorf("%s:\n%s", file, out)
		}
		if format == "qcow2" || format == "vmdk" {
			if out := judged(t, "qemu-img", "check", "-f", format, file); !strings.Contains(out, "No errors were found") {
				t.Errorf("%s:\n%s", file, out)
			}
		}
	}
	for format, most := range map[string]int64{"qcow2": 40e6, "vmdk": 45e6, "ova": 45e6, "gcp.tar.gz": 45e6} {
		if info, err := os.Stat(vmtest.Image(t, "cloud", format)); err != nil || info.Size() >= most {
			t.Errorf("the %s has %d bytes, %v; want less than %d", format, info.Size(), err, most)
		}
	}
	sums := exec.Command("sha256sum", "--check", "--quiet", "cosi-cloud-amd64.sha256")
	sums.Dir = filepath.Dir(raw)
	if out, err := sums.CombinedOutput(); err != nil {
		t.Errorf("sha256sum: %v\n%s", err, out)
	}
}
