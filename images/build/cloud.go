package build

import (
	"bufio"
	"bytes"
	"errors"
	"os"

	"golang.org/x/sync/errgroup"

	"github.com/cosi-os/cosi/images/content"
	"github.com/cosi-os/cosi/images/gcp"
	"github.com/cosi-os/cosi/images/grub"
	"github.com/cosi-os/cosi/images/oci"
	"github.com/cosi-os/cosi/images/ova"
	"github.com/cosi-os/cosi/images/vhd"
	"github.com/cosi-os/cosi/images/vmdk"
)

// diskID is which identifier of the image its disk has in formats that give it one. Partitions have those from 0.
const diskID = 255

// clouds makes of the raw disk what clouds take.
func (w *writer) clouds(group *errgroup.Group) {
	if w.plan.Writes(".vhd") {
		group.Go(func() error {
			return w.convert(".vhd", func(f, raw *os.File) error { return vhd.Spec{ID: w.guid(diskID), Time: w.in.Epoch}.Convert(f, raw) })
		})
	}
	if w.plan.Writes(".gcp.tar.gz") {
		group.Go(func() error {
			return w.convert(".gcp.tar.gz", func(f, raw *os.File) error { return gcp.Convert(f, raw, w.in.Epoch) })
		})
	}
	if w.plan.Writes(".vmdk") || w.plan.Writes(".ova") {
		group.Go(w.vmware)
	}
}

// convert makes a file of the raw disk.
func (w *writer) convert(suffix string, write func(f, raw *os.File) error) error {
	raw, err := os.Open(w.path(".raw"))
	if err != nil {
		return err
	}
	defer raw.Close()
	return errors.Join(w.phase(suffix[1:], func(f *os.File) error { return write(f, raw) }), w.hash(suffix))
}

// vmware makes the disk and, around it, the virtual machine.
func (w *writer) vmware() error {
	capacity := int64(0)
	err := w.convert(".vmdk", func(f, raw *os.File) error {
		st, err := raw.Stat()
		if err != nil {
			return err
		}
		capacity = st.Size()
		out := bufio.NewWriterSize(f, 1<<20)
		return errors.Join(vmdk.Spec{Name: w.plan.Name + ".vmdk", ID: w.guid(diskID)}.Convert(out, raw), out.Flush())
	})
	if err != nil || !w.plan.Writes(".ova") {
		return err
	}
	disk, err := content.Open(w.path(".vmdk"))
	if err != nil {
		return err
	}
	defer disk.Close()
	spec := ova.Spec{Name: w.plan.Name, Version: w.in.Version, Disk: disk, Capacity: capacity, Time: w.in.Epoch}
	return errors.Join(w.phase("ova", func(f *os.File) error { return spec.Write(f) }), w.hash(".ova"))
}

// oci makes the artifact: the boot image, how GRUB boots it, and what it is made of, by their paths on an EFI system partition; and the upgrade, if the
// definition has one made, which is there already.
func (w *writer) oci() error {
	name := efiNames[w.plan.Definition.Arch]
	config, err := w.grub(name, w.boot)
	if err != nil {
		return err
	}
	manifest, err := w.says.Pack()
	if err != nil {
		return err
	}
	spec := oci.Spec{Name: w.plan.Name, Version: w.in.Version, Arch: w.plan.Definition.Arch, Time: w.in.Epoch}
	spec.Files = append(spec.Files, oci.File{Path: name, Type: oci.UKI, Content: w.boot})
	if config != "" {
		spec.Files = append(spec.Files, oci.File{Path: grub.ConfigFile, Type: oci.GRUB, Content: content.String(config)})
	}
	spec.Files = append(spec.Files, oci.File{Path: "manifest.json.gz", Type: oci.Manifest, Content: bytes.NewReader(manifest)})
	if w.plan.Writes(".upgrade") {
		upgrade, err := content.Open(w.path(".upgrade"))
		if err != nil {
			return err
		}
		defer upgrade.Close()
		spec.Files = append(spec.Files, oci.File{Path: w.plan.Name + ".upgrade", Type: oci.Upgrade, Content: upgrade})
	}
	return errors.Join(w.phase("oci.tar", func(f *os.File) error { return spec.Write(f) }), w.hash(".oci.tar"))
}
