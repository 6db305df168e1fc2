package build

import (
	"bufio"
	"errors"
	"os"

	"github.com/cosi-os/cosi/api/upgrade"
	"github.com/cosi-os/cosi/images/content"
	"github.com/cosi-os/cosi/images/disk"
)

// installable makes the upgrade of a disk, and then the medium and the artifact, which hold it.
func (w *writer) installable(spec disk.Spec) error {
	if w.plan.Writes(".upgrade") || w.plan.Writes(".iso") {
		if err := w.upgrade(spec); err != nil {
			return err
		}
	}
	if w.plan.Writes(".iso") {
		if err := errors.Join(w.phase("iso", w.iso), w.hash(".iso")); err != nil {
			return err
		}
	}
	if w.plan.Writes(".oci.tar") {
		return w.oci()
	}
	return nil
}

// upgrade writes what the raw disk consists of as the file that another disk's node upgrades itself with, and that is installed on an empty one.
func (w *writer) upgrade(spec disk.Spec) error {
	raw, err := os.Open(w.path(".raw"))
	if err != nil {
		return err
	}
	defer raw.Close()
	d := w.plan.Definition
	m := upgrade.Manifest{
		Image: w.plan.Name, Version: w.in.Version, Arch: d.Arch, Floor: d.Upgrade.Floor,
		Root: upgrade.Root{Hash: w.slotA.root.String(), Data: w.slotA.size},
	}
	kernel := w.entry().Kernel()
	if m.BIOS, err = w.grub(kernel, w.diskBoot); err != nil {
		return err
	}
	var rest content.Content
	if m.Disk, rest, err = spec.Rest(raw, kernel); err != nil {
		return err
	}
	write := func(f *os.File) error {
		out := bufio.NewWriterSize(f, 1<<20)
		root, kernel := content.Reader(spec.Roots[0]), content.Reader(w.diskBoot)
		return errors.Join(upgrade.Write(out, m, w.parts.keys.upgrade, root, kernel, content.Reader(rest)), out.Flush())
	}
	return errors.Join(w.phase("upgrade", write), w.hash(".upgrade"))
}
