package disk

import (
	"errors"
	"fmt"
	"os"

	"github.com/cosi-os/cosi/api/layout/ext4"
	"github.com/cosi-os/cosi/api/volume"
	"github.com/cosi-os/cosi/engine/wire"
)

// SealArgument says whether a new state partition is encrypted, with a key that the machine's TPM keeps: SealAlways, or none is made; SealNever; or,
// without a word, where there is a TPM 2.0 and the image has a signed policy for it. One that is there stays as it is.
const (
	SealArgument = "cosi.state_seal"
	SealAlways   = "always"
	SealNever    = "never"
)

// Sealer is who encrypts the state partition: the plugin volume. PID 1 itself knows neither the TPM nor the format.
type Sealer interface {
	// Missing says what is not there of what sealing without being told to takes: a TPM 2.0, and an image with a signed policy. Empty: nothing.
	Missing() string
	// Do obeys an order (volume.Create or volume.Open) about a partition. It fails when it has not come to a device.
	Do(order, partition string) (*volume.State, error)
	// Plain is told of a partition that is not encrypted, and why not, if it is made now and the image does not say never.
	Plain(partition, why string)
}

// sealedReserve is what a volume takes beside its data.
const sealedReserve = 4 * mib

// contents is what shows what is in the partition: itself, or a device that decrypts it.
type contents struct {
	node string
	size int64
}

// format makes the file system of a new state partition of size bytes, in a volume if that is asked for.
func (p *Preparer) format(node string, size int64) (contents, error) {
	device := contents{node, size}
	sealed, err := p.seal(node, size)
	switch {
	case err == nil && sealed != nil:
		device = *sealed
	case err != nil && p.Seal == SealAlways:
		return device, err
	default:
		p.plain(node, err)
	}
	v, err := p.kernel.partition(device.node)
	if err != nil {
		return device, err
	}
	o := ext4.Options{UUID: newGUID(), Label: "STATE", Time: p.Now()}
	return device, errors.Join(ext4.Write(v, o), v.Close())
}

// plain says that a partition is not encrypted, and why not, if that is what went wrong.
func (p *Preparer) plain(node string, err error) {
	why := ""
	if err != nil {
		why = err.Error()
		p.Log("state: %s is not sealed: %v", node, err)
	}
	if p.Sealer != nil {
		p.Sealer.Plain(node, why)
	}
}

// seal makes a volume on a partition, if that is to be done: nil without an error if it is not.
func (p *Preparer) seal(node string, size int64) (*contents, error) {
	switch {
	case p.Seal == SealNever:
		return nil, nil
	case p.Sealer == nil && p.Seal == SealAlways:
		return nil, errors.New("the image has no plugin volume, which seals it")
	case p.Sealer == nil:
		return nil, nil
	case p.Seal != SealAlways && p.Sealer.Missing() != "":
		return nil, errors.New(p.Sealer.Missing())
	case size < minimum+sealedReserve:
		return nil, because(noSpace, "a sealed state takes %d MiB", (minimum+sealedReserve)/mib)
	}
	return p.do(volume.Create, node)
}

func (p *Preparer) do(order, node string) (*contents, error) {
	s, err := p.Sealer.Do(order, node)
	if err != nil {
		return nil, err
	}
	return &contents{s.Device, s.Size}, nil
}

// unlock returns what shows what is in a partition of size bytes.
func (p *Preparer) unlock(node string, size int64) (contents, error) {
	device := contents{node, size}
	encrypted, err := p.kernel.encrypted(node)
	switch {
	case err != nil:
		return device, err
	case !encrypted:
		p.plain(node, nil)
		return device, nil
	case p.Sealer == nil:
		return device, because(wire.StorageLocked, "%s is sealed, and the image has no plugin volume, which opens it", node)
	}
	opened, err := p.do(volume.Open, node)
	if err != nil {
		return device, because(wire.StorageLocked, "%w", err)
	}
	return *opened, nil
}

// luksMagic begins an encrypted partition: see package luks2, which PID 1 does not import.
const luksMagic = "LUKS\xba\xbe"

func (linux) encrypted(node string) (bool, error) {
	f, err := os.Open(node)
	if err != nil {
		return false, err
	}
	defer f.Close()
	magic := make([]byte, len(luksMagic))
	if _, err := f.ReadAt(magic, 0); err != nil {
		return false, fmt.Errorf("%s: %w", node, err)
	}
	return string(magic) == luksMagic, nil
}
