package build

import (
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/cosi-os/cosi/images/content"
	"github.com/cosi-os/cosi/images/definition"
	"github.com/cosi-os/cosi/images/plan"
	"github.com/cosi-os/cosi/kernel"
	"github.com/cosi-os/cosi/kernel/kerneltest"
)

// Without a root, the initramfs holds the drivers of disks that the definition names, and what they need. Those that every machine needs at once,
// and what mounts the root, are loaded without looking.
func TestDriversOfDisksComeBeforeTheRoot(t *testing.T) {
	module := func(modinfo ...string) []byte { return kerneltest.Module(t, modinfo...) }
	tree, err := kernel.Open(kerneltest.Tree(t, "kernel/drivers/nvme/host/nvme.ko\n", map[string][]byte{
		"arch/x86/crypto/sha256-ssse3.ko":      module(),
		"drivers/md/dm-verity.ko":              module("depends=dm-mod"),
		"drivers/md/dm-mod.ko":                 module(),
		"fs/erofs/erofs.ko":                    module(),
		"drivers/block/virtio_blk.ko":          module("alias=virtio:d00000002v*"),
		"drivers/block/loop.ko":                module(),
		"drivers/net/virtio_net.ko":            module("alias=virtio:d00000001v*"),
		"drivers/virtio/virtio_pci.ko":         module("alias=pci:v00001AF4d*sv*sd*bc*sc*i*"),
		"drivers/virtio/virtio_balloon.ko":     module("alias=virtio:d00000005v*"),
		"drivers/ata/ahci.ko":                  module("depends=libata", "alias=pci:v*d*sv*sd*bc01sc06i01*"),
		"drivers/ata/libata.ko":                module("depends=scsi_common"),
		"drivers/scsi/scsi_common.ko":          module(),
		"drivers/scsi/sr_mod.ko":               module("alias=scsi:t-0x05*", "depends=cdrom"),
		"drivers/cdrom/cdrom.ko":               module(),
		"drivers/usb/host/xhci-pci.ko":         module("alias=pci:v*d*sv*sd*bc0Csc03i30*"),
		"drivers/mmc/core/mmc_core.ko":         module(),
		"drivers/mmc/core/mmc_block.ko":        module("depends=mmc_core", "alias=mmc:block"),
		"drivers/misc/cardreader/rtsx_pci.ko":  module("alias=pci:v000010ECd00005209sv*sd*bcFFsc*i*"),
		"drivers/mmc/host/rtsx_pci_sdmmc.ko":   module("depends=rtsx_pci,mmc_core", "alias=platform:rtsx_pci_sdmmc"),
		"drivers/hv/hv_vmbus.ko":               module("alias=acpi*:VMBUS:*"),
		"drivers/net/hyperv/hv_netvsc.ko":      module("depends=hv_vmbus", "alias=vmbus:635161f83edfc546913ff2d2f965ed0e"),
		"drivers/pci/controller/pci-hyperv.ko": module("depends=hv_vmbus", "alias=vmbus:1df6c444444400449d52802e27ede19f"),
		"drivers/usb/storage/usb-storage.ko":   module("depends=scsi_common", "alias=usb:v*p*d*dc*dsc*dp*ic08isc06ip50in*"),
	}))
	if err != nil {
		t.Fatal(err)
	}
	d := &definition.Definition{}
	d.Kernel.Modules.Boot = []string{"virtio-net", "virtio_pci", "virtio-blk"}
	d.Kernel.Modules.Ship = []string{"loop", "ahci", "nvme", "sr_mod", "virtio_balloon", "usb-storage", "xhci_pci", "mmc_block", "rtsx_pci_sdmmc", "hv_netvsc", "pci_hyperv"}
	w := &writer{plan: &plan.Plan{Definition: d}, parts: &parts{kernel: tree}}
	early, others, err := w.diskModules([]string{"erofs"})
	if err != nil {
		t.Fatal(err)
	}
	files, err := w.moduleFiles(early, others)
	if err != nil {
		t.Fatal(err)
	}
	texts, modules := map[string]string{}, []string{}
	for _, f := range files {
		if strings.HasSuffix(f.Path, ".ko") {
			modules = append(modules, f.Path[strings.LastIndex(f.Path, "/")+1:])
			continue
		}
		text, err := io.ReadAll(content.Reader(f.Content))
		if err != nil {
			t.Fatal(err)
		}
		texts[f.Path] = string(text)
	}
	slices.Sort(modules)
	if got, want := strings.Join(modules, " "), "ahci.ko dm-mod.ko dm-verity.ko erofs.ko hv_vmbus.ko libata.ko mmc_block.ko mmc_core.ko pci-hyperv.ko rtsx_pci.ko rtsx_pci_sdmmc.ko scsi_common.ko sha256-ssse3.ko usb-storage.ko virtio_blk.ko virtio_pci.ko xhci-pci.ko"; got != want {
		t.Errorf("the initramfs holds %s; want %s", got, want)
	}
	dir := "usr/lib/modules/" + tree.Release + "/"
	want := ""
	for _, path := range []string{"arch/x86/crypto/sha256-ssse3", "fs/erofs/erofs", "drivers/md/dm-mod", "drivers/md/dm-verity", "drivers/virtio/virtio_pci", "drivers/block/virtio_blk"} {
		want += "/" + dir + "kernel/" + path + ".ko\n"
	}
	if got := texts["etc/cosi/modules"]; got != want {
		t.Errorf("loaded at once:\n%s; want\n%s", got, want)
	}
	if dep, alias := texts[dir+"modules.dep"], texts[dir+"modules.alias"]; !strings.Contains(dep, "ahci.ko: kernel/drivers/ata/libata.ko") || !strings.Contains(alias, "ic08isc06ip50in* usb_storage\n") ||
		!strings.Contains(alias, "bcFFsc*i* rtsx_pci\n") || !strings.Contains(alias, "acpi*:VMBUS:* hv_vmbus\n") {
		t.Errorf("modules.dep:\n%smodules.alias:\n%s", dep, alias)
	}
}
