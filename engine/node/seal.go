package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/cosi-os/cosi/api/declaration"
	"github.com/cosi-os/cosi/api/volume"
	"github.com/cosi-os/cosi/engine/module"
)

// sealPatience is how long the plugin volume may take with the state partition: a TPM is slow, and one that hangs must not keep the node from coming up.
const sealPatience = 60 * time.Second

// tpm is the kernel's resource manager of a TPM 2.0.
const tpm = "/dev/tpmrm0"

// sealer has the plugin volume encrypt the state partition and open it. The plugin runs for that alone, as it would later, before the runtime starts.
type sealer struct {
	ctx  context.Context
	node *Node
	*declaration.Declaration
}

// sealer returns nil if the image has no plugin volume.
func (n *Node) sealer(ctx context.Context) *sealer {
	i := slices.IndexFunc(n.declarations, func(d *declaration.Declaration) bool { return d.Name == volume.Plugin })
	if i < 0 {
		return nil
	}
	return &sealer{ctx, n, n.declarations[i]}
}

// acpiTPM is the table in which the firmware lists a TPM 2.0 (TCG ACPI Specification 1.4, section 8).
const acpiTPM = "/sys/firmware/acpi/tables/TPM2"

// Missing implements disk.Sealer.
func (s *sealer) Missing() string { return missing(s.node.Root) }

func missing(root string) string {
	there := func(path string) bool {
		_, err := os.Stat(filepath.Join(root, path))
		return err == nil
	}
	switch {
	case !there(filepath.Join(volume.BootDir, volume.PublicKey)) || !there(filepath.Join(volume.BootDir, volume.Signatures)):
		return "the image has no pcr_policy"
	case there(tpm):
		return ""
	case there(acpiTPM):
		return "the firmware lists a TPM 2.0, and the kernel has not started it"
	}
	return "there is no TPM 2.0"
}

// Do implements disk.Sealer.
func (s *sealer) Do(order, partition string) (*volume.State, error) {
	// The last is the processor's own way to do AES, which the kernel would know of only later. Without, it is slower. What is missing may be built
	// into the kernel; if it is not, the plugin says so.
	for _, name := range append(slices.Clone(s.Modules), "crypto-aes") {
		if _, err := s.node.modules.Ask(name, ""); err != nil && !errors.Is(err, module.ErrMissing) {
			s.node.complain(err)
		}
	}
	s.node.complain(s.node.access.GrantAll()...) // the partition may be new
	spec, err := s.node.pluginSpec(s.Declaration)
	if err != nil {
		return nil, err
	}
	spec.Env = append(spec.Env, volume.Order+"="+order+" "+partition)
	if err := os.Remove(filepath.Join(volume.Dir, volume.AnswerFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(s.ctx, sealPatience)
	defer cancel()
	end := s.node.supervisor.Once(ctx, spec)
	answer, err := volume.Read(volume.Dir)
	switch {
	case err != nil:
		return nil, fmt.Errorf("plugin volume gave no answer: %s", end)
	case answer.Device == "":
		return nil, errors.New(answer.Message)
	}
	s.node.log.Printf("state: %s is opened by the %s", partition, answer.UnlockedBy)
	return answer, nil
}

// Plain implements disk.Sealer.
func (s *sealer) Plain(partition, why string) {
	err := os.MkdirAll(volume.Dir, 0o755)
	if err == nil {
		err = (&volume.State{Partition: partition, Message: why}).Write(volume.Dir)
	}
	if err != nil {
		s.node.complain(err)
	}
}
