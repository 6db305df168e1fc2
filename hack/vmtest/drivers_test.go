package vmtest_test

import (
	"io"
	"os"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/cosi-os/cosi/hack/vmtest"
)

// The modules of every platform's devices are where they are looked for: those of disks in the initramfs, all of them in the root. NVMe is in the
// kernel itself.
func TestCloudImageHasEveryDriver(t *testing.T) {
	if os.Getenv("COSI_TEST_BOOTS") != "all" {
		t.Skip("looks into the image of cloud.yaml, with COSI_TEST_BOOTS=all: make test-boot")
	}
	raw, dir := vmtest.Image(t, "cloud", "raw"), t.TempDir()
	root, err := os.Open(slotOf(t, raw, dir))
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	early, late := imageFiles(t, initrd(t, ukiOf(t, raw, dir))), rootFiles(t, root)
	const disk, network = true, false
	for _, device := range []struct {
		name, modalias, module string
		disk                   bool
	}{
		{"AWS: ENA", "pci:v00001D0Fd0000EC20sv00001D0Fsd0000EC20bc02sc00i00", "ena", network},
		{"Google: gVNIC", "pci:v00001AE0d00000042sv00001AE0sd00000058bc02sc00i00", "gve", network},
		{"Google: virtio's card", "virtio:d00000001v00001AF4", "virtio_net", network},
		{"Google: virtio's SCSI", "virtio:d00000008v00001AF4", "virtio_scsi", disk},
		{"Azure: the bus", "acpi:VMBUS:", "hv_vmbus", disk},
		{"Azure: SCSI", "vmbus:d96361baa104294db60572e2ffb1dc7f", "hv_storvsc", disk},
		{"Azure: IDE, of generation 1", "vmbus:32264132cb86a2449b5c50d1417354f5", "hv_storvsc", disk},
		{"Azure: what NVMe is behind", "vmbus:1df6c444444400449d52802e27ede19f", "pci_hyperv", disk},
		{"Azure: the network", "vmbus:635161f83edfc546913ff2d2f965ed0e", "hv_netvsc", network},
		{"Azure: MANA", "pci:v00001414d000000BAsv00001414sd000000BAbc02sc00i00", "mana", network},
		{"VMware: pvscsi", "pci:v000015ADd000007C0sv000015ADsd000007C0bc01sc07i00", "vmw_pvscsi", disk},
		{"VMware: vmxnet3", "pci:v000015ADd000007B0sv000015ADsd000007B0bc02sc00i00", "vmxnet3", network},
		{"OpenStack: virtio's disk", "virtio:d00000002v00001AF4", "virtio_blk", disk},
		{"all: a SCSI disk", "scsi:t-0x00", "sd_mod", disk},
	} {
		if got := modulesFor(t, late, device.modalias); !slices.Contains(got, device.module) {
			t.Errorf("%s: the root has %q for %s; want %s", device.name, got, device.modalias, device.module)
		}
		if got := modulesFor(t, early, device.modalias); device.disk && !slices.Contains(got, device.module) {
			t.Errorf("%s: the initramfs has %q for %s; want %s", device.name, got, device.modalias, device.module)
		}
	}
}

// modulesFor are the modules among files that a device gets, by its modalias.
func modulesFor(t *testing.T, files []file, modalias string) (names []string) {
	t.Helper()
	there := map[string]bool{}
	for _, f := range files {
		if name, is := strings.CutSuffix(path.Base(f.path), ".ko"); is {
			there[strings.ReplaceAll(name, "-", "_")] = true
		}
	}
	at := slices.IndexFunc(files, func(f file) bool { return path.Base(f.path) == "modules.alias" })
	if at < 0 {
		t.Fatal("there is no modules.alias")
	}
	text, err := io.ReadAll(io.NewSectionReader(files[at].content, 0, files[at].size))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		words := strings.Fields(line) // alias PATTERN MODULE
		if match, err := path.Match(words[1], modalias); err != nil {
			t.Fatalf("%q: %v", line, err)
		} else if match && there[words[2]] {
			names = append(names, words[2])
		}
	}
	return names
}
