package boot

import (
	"os"
	"path/filepath"

	"github.com/cosi-os/cosi/api/volume"
)

// stubDir in the initramfs has what systemd-stub adds to it: systemd-stub(7).
const stubDir = "/.extra"

// policy are the files about the image's policy for a TPM, by name. Most images have none.
type policy map[string][]byte

// keepPolicy holds on to them before the initramfs is freed.
func keepPolicy() policy {
	all := policy{}
	for _, name := range []string{volume.PublicKey, volume.Signatures} {
		if data, err := os.ReadFile(filepath.Join(stubDir, name)); err == nil {
			all[name] = data
		}
	}
	return all
}

func (p policy) restore() error {
	for name, data := range p {
		if err := os.MkdirAll(volume.BootDir, 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(volume.BootDir, name), data, 0o644); err != nil {
			return err
		}
	}
	return nil
}
