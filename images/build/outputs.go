package build

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/cosi-os/cosi/api/layout/bootentry"
	"github.com/cosi-os/cosi/images/content"
	"github.com/cosi-os/cosi/images/disk"
	"github.com/cosi-os/cosi/images/fat"
	"github.com/cosi-os/cosi/images/grub"
	"github.com/cosi-os/cosi/images/manifest"
	"github.com/cosi-os/cosi/images/pack"
	"github.com/cosi-os/cosi/images/plan"
	"github.com/cosi-os/cosi/images/qcow2"
	"github.com/cosi-os/cosi/images/rootfs"
	"github.com/cosi-os/cosi/images/uki"
)

// efiNames are what the firmware starts from a medium that it knows nothing about.
var efiNames = map[string]string{"amd64": "EFI/BOOT/BOOTX64.EFI", "arm64": "EFI/BOOT/BOOTAA64.EFI"}

// writer makes the files of one image in a directory of its own.
type writer struct {
	ctx   context.Context // of the build: its functions are called by what makes the formats, which knows none
	o     Options
	plan  *plan.Plan
	in    *Inputs
	parts *parts
	work  string
	says  *manifest.Manifest

	boot     bootable
	diskBoot bootable        // it has no root, and names the one in slot A
	manager  content.Content // systemd-boot, signed like them
	slotA    slot
	mu       sync.Mutex // guards made
	made     map[string]manifest.File

	// seed makes identifiers that differ from image to image, and are the same for the same image.
	seed [sha256.Size]byte
}

// bootable is a unified kernel image, signed if the definition wants that, with the arguments of its kernel.
type bootable struct {
	content.Content
	image     *uki.Image // as it was before it was signed: its sections lie where they lay
	arguments string
}

// write makes the plan's outputs below work and returns them in the plan's order. It ends soon after ctx does.
func write(ctx context.Context, o Options, p *plan.Plan, in *Inputs, parts *parts, says *manifest.Manifest, work string) ([]manifest.File, error) {
	w := &writer{ctx: ctx, o: o, plan: p, in: in, parts: parts, work: work, says: says, made: map[string]manifest.File{}}
	if err := w.root(); err != nil {
		return nil, err
	}
	closeAll, err := w.bootImage()
	if err != nil {
		return nil, err
	}
	defer closeAll()

	group := errgroup.Group{}
	if p.HasDisk() {
		group.Go(w.disk)
	}
	if p.Writes(".efi") {
		group.Go(func() error { return w.copy(".efi", w.boot) })
	}
	if p.Writes(".oci.tar") && !p.HasDisk() {
		group.Go(w.oci)
	}
	if p.Writes(".vmlinuz") {
		group.Go(w.direct)
	}
	if p.Writes(".ipxe") {
		group.Go(w.script)
		group.Go(w.networkLoaders)
	}
	if err := errors.Join(group.Wait(), ctx.Err()); err != nil {
		return nil, err
	}
	var all []manifest.File
	for _, output := range p.Outputs {
		all = append(all, w.made[output.File])
	}
	return all, nil
}

func (w *writer) path(suffix string) string { return filepath.Join(w.work, w.plan.Name+suffix) }

// phase makes a file whose name's suffix is the phase's name.
func (w *writer) phase(name string, write func(*os.File) error) error {
	done := w.o.Phase(name)
	defer done("")
	return w.create("."+name, write)
}

func (w *writer) create(suffix string, write func(*os.File) error) error {
	f, err := os.OpenFile(w.path(suffix), os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o644)
	if err != nil {
		return err
	}
	defer context.AfterFunc(w.ctx, func() { f.Close() })() // what is written next fails
	err = errors.Join(write(f), f.Close())
	if w.ctx.Err() != nil {
		return w.ctx.Err()
	}
	return err
}

// hash notes what a file that was made is, if the plan asks for it.
func (w *writer) hash(suffix string) error {
	path := w.path(suffix)
	if !w.plan.Writes(suffix) {
		return nil
	}
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	hash, err := manifest.Sum(path)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.made[filepath.Base(path)] = manifest.File{Name: filepath.Base(path), Size: info.Size(), SHA256: hash}
	return err
}

func (w *writer) copy(suffix string, c content.Content) error {
	err := w.create(suffix, func(f *os.File) error { return content.CopyAt(f, 0, c) })
	return errors.Join(err, w.hash(suffix))
}

// direct makes the kernel and the initramfs; that is there already.
func (w *writer) direct() error {
	linux, err := content.Open(w.parts.kernel.Image)
	if err != nil {
		return err
	}
	defer linux.Close()
	return errors.Join(w.copy(".vmlinuz", linux), w.hash(".initramfs"))
}

// networkLoaders makes the files of iPXE, which Debian calls by their suffixes.
func (w *writer) networkLoaders() error {
	for _, suffix := range plan.NetworkLoaders[w.plan.Definition.Arch] {
		c, err := content.Open(filepath.Join(w.parts.network, suffix[1:]))
		if err != nil {
			return err
		}
		if err := errors.Join(w.copy(suffix, c), c.Close()); err != nil {
			return err
		}
	}
	return nil
}

// script makes the script by which iPXE boots this image. It names the files beside it, wherever they are served, and takes more arguments of
// the kernel from whoever chains it. By UEFI the unified kernel image is started, which a signature covers; under Secure Boot it goes by
// its own arguments. Its stub, like the kernel of a BIOS, is told the file's name first, which Linux leaves alone as it has a dot.
func (w *writer) script() error {
	if strings.Contains(w.plan.CommandLine, "${") {
		return fmt.Errorf("kernel.arguments: %q: iPXE would replace what follows ${", w.plan.CommandLine)
	}
	bios := ""
	if w.plan.Definition.Arch == plan.BIOSArch {
		bios = `iseq ${platform} efi && goto efi ||
initrd %[1]s.initramfs
chain %[1]s.vmlinuz initrd=%[1]s.initramfs %[3]s ${arguments}
:efi
`
	}
	text := fmt.Sprintf(`#!ipxe
# Boots %[1]s %[2]s. Before it chains this file, a script may set the variable arguments: more arguments of the kernel, as in
#   set arguments cosi.userdata=https://server.example/user-data.yaml
`+bios+`chain %[1]s.efi %[3]s ${arguments}
`, w.plan.Name, w.in.Version, w.plan.CommandLine)
	return w.copy(".ipxe", content.String(text))
}

// root makes the root file system and the initramfs around it.
func (w *writer) root() error {
	entries, err := userland(w.plan, w.in, w.parts.contents, w.parts.programs, w.parts.unpinned())
	if err != nil {
		return err
	}
	kernelEntries, err := modules(w.plan, w.parts)
	if err != nil {
		return err
	}
	packed, err := w.says.Pack()
	if err != nil {
		return err
	}
	entries = append(append(entries, kernelEntries...), file(plan.Manifest, packed))
	if err := w.phase("root.erofs", func(f *os.File) error { return rootfs.Write(f, entries, w.in.Epoch) }); err != nil {
		return err
	}
	return errors.Join(w.phase("initramfs", w.initramfs), w.slot())
}

// bootImage puts the unified kernel image together; it stays readable until closeAll.
func (w *writer) bootImage() (closeAll func(), err error) {
	initrd, err := content.Open(w.path(".initramfs"))
	if err != nil {
		return nil, err
	}
	rootless, err := content.Open(w.path(diskInitramfs))
	if err != nil {
		initrd.Close()
		return nil, err
	}
	linux, err := content.Open(w.parts.kernel.Image)
	if err != nil {
		initrd.Close()
		rootless.Close()
		return nil, err
	}
	closeAll = func() { initrd.Close(); rootless.Close(); linux.Close() }
	join := func(arguments string, initrd content.Content) (bootable, error) {
		spec := uki.Spec{CommandLine: arguments, Uname: w.parts.kernel.Release, Initrd: initrd, Linux: linux}
		image, err := w.parts.keys.unify(w.parts.stub, spec)
		if err != nil {
			return bootable{}, err
		}
		signed, err := w.parts.keys.sign(image)
		return bootable{signed, image, arguments}, err
	}
	if err = w.plant(initrd, linux); err == nil {
		w.boot, err = join(w.plan.CommandLine, initrd)
	}
	if err == nil {
		w.diskBoot, err = join(w.plan.CommandLine+" "+w.diskArguments(), rootless)
	}
	if err == nil {
		w.manager, err = w.parts.keys.sign(bytes.NewReader(w.parts.manager))
	}
	if err != nil {
		closeAll()
		return nil, err
	}
	return closeAll, nil
}

// plant makes the seed: of the unified kernel image without any signature, so that the rest of an image is the same whoever signs it, and again.
func (w *writer) plant(initrd, linux content.Content) error {
	spec := uki.Spec{CommandLine: w.plan.CommandLine, Uname: w.parts.kernel.Release, PolicyKey: w.parts.keys.public, Initrd: initrd, Linux: linux}
	image, err := uki.New(w.parts.stub, spec)
	if err != nil {
		return err
	}
	h := sha256.New()
	_, err = io.Copy(h, content.Reader(image))
	copy(w.seed[:], h.Sum(nil))
	return err
}

// guid makes the nth identifier of the image, in the form of a random (version 4) one.
func (w *writer) guid(n byte) string {
	id := sha256.Sum256(append(w.seed[:], n))
	id[6], id[8] = id[6]&0x0f|0x40, id[8]&0x3f|0x80
	return strings.ToUpper(fmt.Sprintf("%x-%x-%x-%x-%x", id[0:4], id[4:6], id[6:8], id[8:10], id[10:16]))
}

// esp returns the files of a CD's EFI system partition: the firmware starts the unified kernel image itself, unless it has to be taught keys.
func (w *writer) esp(boot bootable) ([]fat.File, error) {
	name := efiNames[w.plan.Definition.Arch]
	files := []fat.File{{Path: name, Content: boot}}
	if w.plan.Definition.SecureBoot.Enrols() {
		name, files = w.entry().Kernel(), w.managed(boot)
	}
	config, err := w.grub(name, boot)
	if config != "" {
		files = append(files, fat.File{Path: grub.ConfigFile, Content: content.String(config)})
	}
	return files, err
}

// grub is how GRUB boots the unified kernel image with a name on the EFI system partition; empty if no BIOS boots the image.
func (w *writer) grub(name string, boot bootable) (string, error) {
	if w.plan.Definition.Arch != plan.BIOSArch {
		return "", nil
	}
	return grub.Config(name, boot.image, boot.arguments)
}

// entry is the boot entry of a disk.
func (w *writer) entry() bootentry.Entry {
	return bootentry.Entry{Number: 1, State: bootentry.Good, Version: w.in.Version, Root: w.slotA.root}
}

// managed are the files by which systemd-boot starts a unified kernel image, and teaches the firmware keys if the definition wants that.
func (w *writer) managed(boot bootable) []fat.File {
	e := w.entry()
	config, keys := enrolment(w.plan.Definition.SecureBoot)
	return append([]fat.File{
		{Path: efiNames[w.plan.Definition.Arch], Content: w.manager},
		{Path: bootentry.ConfigFile, Content: content.String(config)},
		{Path: e.Path(), Content: content.String(e.Text())},
		{Path: e.Kernel(), Content: boot},
	}, keys...)
}

// diskESP returns the files of a disk's: systemd-boot and, for a BIOS, GRUB's, and an entry for the unified kernel image. Upgrades bring another.
func (w *writer) diskESP() ([]fat.File, error) {
	e, files := w.entry(), w.managed(w.diskBoot)
	config, err := w.grub(e.Kernel(), w.diskBoot)
	if config != "" {
		files = append(files,
			fat.File{Path: grub.ConfigFile, Content: content.String(grub.DiskConfig)},
			fat.File{Path: e.GRUBFile(), Content: content.String(config)},
			fat.File{Path: bootentry.EnvFile, Content: bytes.NewReader(bootentry.Env{Good: e.Root}.Encode())})
	}
	return files, err
}

// firstExtra is which identifier of the image the first partition has that a definition adds.
const firstExtra = 5

func (w *writer) volume() uint32 { return binary.LittleEndian.Uint32(w.seed[:]) }

// disk writes the raw disk and what is made of it.
func (w *writer) disk() error {
	esp, err := w.diskESP()
	if err != nil {
		return err
	}
	extra, closeExtra, err := w.extraPartitions()
	if err != nil {
		return err
	}
	defer closeExtra()
	root, err := content.Open(w.path(".root.erofs"))
	if err != nil {
		return err
	}
	defer root.Close()
	slotA := &content.Joined{}
	slotA.Append(root)
	slotA.Append(w.slotA.hashes)
	sizes := w.plan.Definition.Partitions
	spec := disk.Spec{
		ESPSize: sizes.ESP.Bytes(), RootSize: sizes.Root.Bytes(), Extra: extra,
		DiskGUID: w.guid(0), PartitionGUIDs: [4]string{w.guid(1), w.guid(2), w.guid(3), w.guid(4)},
		Loader: w.parts.loader, VolumeID: w.volume(), ESP: esp, Roots: [2]content.Content{slotA}, Time: w.in.Epoch,
	}
	if err := w.phase("raw", spec.Write); err != nil {
		return err
	}
	group := errgroup.Group{}
	group.Go(func() error { return w.hash(".raw") })
	if w.plan.Writes(".qcow2") {
		group.Go(func() error { return w.convert(".qcow2", qcow2.Convert) })
	}
	w.clouds(&group)
	group.Go(func() error { return w.installable(spec) })
	// One after the other: each takes all processors, and memory for each of them.
	group.Go(func() error {
		for _, format := range []pack.Format{pack.Zstandard, pack.Gzip, pack.XZ} {
			if !w.plan.Writes(".raw." + string(format)) {
				continue
			}
			if err := w.pack(".raw", format); err != nil {
				return err
			}
		}
		return nil
	})
	return group.Wait()
}

// pack compresses a file that was made.
func (w *writer) pack(suffix string, format pack.Format) error {
	plain, err := content.Open(w.path(suffix))
	if err != nil {
		return err
	}
	defer plain.Close()
	packed := suffix + "." + string(format)
	return errors.Join(w.phase(packed[1:], func(f *os.File) error { return format.Write(f, plain) }), w.hash(packed))
}

// extraPartitions are those that the definition adds. Their contents stay readable until closeAll.
func (w *writer) extraPartitions() (all []disk.Partition, closeAll func(), err error) {
	var open []io.Closer
	closeAll = func() {
		for _, c := range open {
			c.Close()
		}
	}
	for i, p := range w.plan.Definition.Partitions.Extra {
		extra := disk.Partition{Name: p.Name, GUID: w.guid(byte(firstExtra + i)), Size: p.Size.Bytes()}
		if p.Content != "" {
			c, err := content.Open(p.Content)
			if err != nil {
				closeAll()
				return nil, nil, err
			}
			extra.Content, open = c, append(open, c)
		}
		all = append(all, extra)
	}
	return all, closeAll, nil
}
