package inspect

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/cosi-os/cosi/api/upgrade"
)

// installed are the signatures of the disk that a medium installs, and that of the file that it is made of. A medium that installs none has none.
func (i *Image) installed() ([][]byte, error) {
	m, err := upgrade.OpenMedium(i.file)
	if errors.Is(err, upgrade.ErrNoMedium) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	u, err := upgrade.Open(m)
	if err != nil {
		return nil, err
	}
	f, err := os.CreateTemp("", "cosi-disk-")
	if err != nil {
		return nil, err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	if err := makeDisk(f, u); err != nil {
		return nil, err
	}
	disk, err := Open(f.Name())
	if err != nil {
		return nil, err
	}
	defer disk.Close()
	all, err := disk.SignatureBytes()
	if signature := u.Signature(); signature != nil {
		all = append(all, signature)
	}
	return all, err
}

// makeDisk makes f, which is empty, the disk that an upgrade is installed as.
func makeDisk(f *os.File, u *upgrade.Reader) error {
	if u.Manifest.Disk == nil {
		return errors.New("it makes no disk")
	}
	d := u.Manifest.Disk
	if err := errors.Join(f.Truncate(d.Image), u.Root(io.NewOffsetWriter(f, d.RootAt))); err != nil {
		return err
	}
	if err := u.Kernel(io.NewOffsetWriter(f, d.KernelAt)); err != nil {
		return err
	}
	head, err := u.Disk(f)
	if err == nil {
		_, err = f.WriteAt(head, 0)
	}
	return errors.Join(err, u.Close())
}

// withInstalled adds the signatures of what a medium installs to its own.
func (i *Image) withInstalled(own [][]byte) ([][]byte, error) {
	if i.Format != ISO {
		return own, nil
	}
	more, err := i.installed()
	if err != nil {
		return nil, fmt.Errorf("%s: %s: %w", i.path, upgrade.MediumFile, err)
	}
	for _, s := range more {
		if !slices.ContainsFunc(own, func(o []byte) bool { return bytes.Equal(o, s) }) {
			own = append(own, s)
		}
	}
	return own, nil
}
