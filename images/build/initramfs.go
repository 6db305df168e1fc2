package build

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/cosi-os/cosi/api/layout/verity"
	"github.com/cosi-os/cosi/images/content"
	"github.com/cosi-os/cosi/images/plan"
	"github.com/cosi-os/cosi/initramfs"
	"github.com/cosi-os/cosi/kernel"
)

// rootModules are what mounting the root takes. Before Linux 6.12 a file is no file system's device. What erofs needs asks for a cipher by a name
// that only its module's aliases tell; the kernels that are ours or older may have it as a module, the newest have none.
func rootModules(release string) []string {
	var major, minor int
	switch _, err := fmt.Sscanf(release, "%d.%d", &major, &minor); {
	case err != nil || major > 6 || major == 6 && minor > 12:
		return []string{"erofs"}
	case major == 6 && minor == 12:
		return []string{"crc32c_generic", "erofs"}
	}
	return []string{"crc32c_generic", "erofs", "loop"}
}

// initramfs writes the one that holds the root.
func (w *writer) initramfs(f *os.File) error {
	root, err := content.Open(w.path(".root.erofs"))
	if err != nil {
		return err
	}
	defer root.Close()
	files, err := w.moduleFiles(rootModules(w.parts.kernel.Release), nil)
	if err != nil {
		return err
	}
	return w.archive(f, append(files, initramfs.File{Path: "root.erofs", Content: root}))
}

// diskInitramfs is the suffix of the initramfs that holds no root.
const diskInitramfs = ".disk.initramfs"

// slot is what is known of the root in slot A.
type slot struct {
	root   verity.Hash
	size   int64         // of the root's image
	hashes *bytes.Reader // what belongs behind it
}

// slot makes what a disk has instead of the root in its initramfs: the hash tree behind the root in the slot, and an initramfs with the drivers
// of disks.
func (w *writer) slot() error {
	root, err := content.Open(w.path(".root.erofs"))
	if err != nil {
		return err
	}
	defer root.Close()
	area, hash, err := verity.Make(root, root.Size())
	if err != nil {
		return err
	}
	w.slotA = slot{hash, root.Size(), bytes.NewReader(area)}
	early, others, err := w.diskModules(rootModules(w.parts.kernel.Release))
	if err != nil {
		return err
	}
	files, err := w.moduleFiles(early, others)
	if err != nil {
		return err
	}
	return w.create(diskInitramfs, func(f *os.File) error { return w.archive(f, files) })
}

// fastHash is SHA-256 as processors of amd64 do it best. It spares a boot more than it costs to load: 0.6 of 4.7 G instructions on one that has AVX2
// and no instructions for just that. It comes first, as the kernel takes it for the signatures of the modules behind it, too.
const fastHash = "sha256_ssse3"

// diskModules are what an initramfs without a root loads at once, and the drivers of disks. What the definition has loaded before the plugins is for
// all machines that the image is for: the drivers among that need not be looked for.
func (w *writer) diskModules(mounting []string) (early, drivers []string, err error) {
	drivers, err = storage(w.plan, w.parts.kernel)
	var first []string
	if slices.Contains(w.parts.kernel.Names(), fastHash) {
		first = []string{fastHash}
	}
	for _, name := range slices.Concat(first, mounting, []string{"dm_verity"}) {
		if name != "loop" { // a slot is a device already
			early = append(early, name)
		}
	}
	for _, name := range w.plan.Definition.Kernel.Modules.Boot {
		if slices.Contains(drivers, strings.ReplaceAll(name, "-", "_")) {
			early = append(early, name)
		}
	}
	return early, drivers, err
}

// diskArguments are what the kernel of a disk is told, too: see engine/disk. They say nothing of the disk, which an upgrade may find with another
// image's identifiers. An image that is no disk has none of them.
func (w *writer) diskArguments() string {
	return fmt.Sprintf("roothash=%s systemd.verity_root_options=hash-offset=%d", w.slotA.root, w.slotA.size)
}

// driverPaths are the directories of the kernel that drivers of disks lie in, and modules that are such drivers. Some of those are of the bus: an
// NVMe disk is behind Intel's VMD, or behind Hyper-V's PCI, as on Azure.
var driverPaths = []string{
	"kernel/drivers/ata/", "kernel/drivers/block/virtio_blk.ko", "kernel/drivers/mmc/", "kernel/drivers/nvme/", "kernel/drivers/pci/controller/pci-hyperv.ko",
	"kernel/drivers/pci/controller/vmd.ko",
	"kernel/drivers/scsi/", "kernel/drivers/usb/host/", "kernel/drivers/usb/storage/", "kernel/drivers/virtio/virtio_mmio.ko",
	"kernel/drivers/virtio/virtio_pci.ko",
}

// notDisks are modules there that serve something else.
var notDisks = []string{"sr_mod"}

// storage are the names of those modules that the definition names and that disks may need.
func storage(p *plan.Plan, k *kernel.Tree) (names []string, err error) {
	all, err := k.Resolve(slices.Concat(p.Definition.Kernel.Modules.Boot, p.Definition.Kernel.Modules.Ship)...)
	if err != nil {
		return nil, fmt.Errorf("%s: kernel.modules: %w", p.Definition.File, err)
	}
	for _, m := range all {
		in := func(prefix string) bool { return strings.HasPrefix(m.Path, prefix) }
		if slices.ContainsFunc(driverPaths, in) && !slices.Contains(notDisks, m.Name) {
			names = append(names, m.Name)
		}
	}
	return names, nil
}

// moduleFiles are the modules that are loaded early, with what they need, in a list, and others for the devices that ask for them.
func (w *writer) moduleFiles(early, others []string) (files []initramfs.File, err error) {
	first, err := w.parts.kernel.Resolve(early...)
	if err != nil {
		return nil, err
	}
	all, err := w.parts.kernel.Resolve(slices.Concat(early, others)...)
	if err != nil {
		return nil, err
	}
	dir := "usr/lib/modules/" + w.parts.kernel.Release + "/"
	order := &strings.Builder{}
	for _, m := range first {
		fmt.Fprintf(order, "/%s%s\n", dir, m.Path)
	}
	for _, m := range all {
		files = append(files, initramfs.File{Path: dir + m.Path, Content: content.String(string(m.Data))})
	}
	if len(others) > 0 {
		files = append(files,
			initramfs.File{Path: dir + "modules.dep", Content: content.String(kernel.Dependencies(all))},
			initramfs.File{Path: dir + "modules.alias", Content: content.String(kernel.Aliases(all))})
	}
	return append(files, initramfs.File{Path: "etc/cosi/modules", Content: content.String(order.String())}), nil
}

// archive writes an initramfs: the engine and files.
func (w *writer) archive(f *os.File, files []initramfs.File) error {
	engine, err := content.Open(w.parts.programs["usr/bin/engine"])
	if err != nil {
		return err
	}
	defer engine.Close()
	files = append(files, initramfs.File{Path: "init", Executable: true, Content: engine})
	out := bufio.NewWriterSize(f, 1<<20)
	return errors.Join(initramfs.Write(out, files, w.plan.Definition.Initramfs.Compression), out.Flush())
}
