package volume

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/go-tpm/tpm2/transport"
	"github.com/google/go-tpm/tpm2/transport/linuxtpm"

	"github.com/cosi-os/cosi/api/layout/luks2"
	"github.com/cosi-os/cosi/api/volume"
)

// stateID is the id of the node's own volume.
const stateID = "state"

// Values of UnlockedBy.
const (
	byTPM      = "tpm"
	byRecovery = "recovery"
)

// errNoTPM says that the machine has none, or one that did not answer when the kernel came up.
var errNoTPM = errors.New("the kernel has found no TPM 2.0")

// machine is where the plugin finds what it works with.
type machine struct {
	dir, bootDir string // volume.Dir and volume.BootDir
	links        string // where people look for mapped devices: /dev/mapper
	openTPM      func() (transport.TPMCloser, error)
	mapped       mapped
	grow         func(device string) error // what is on it, to its size
}

// real is the machine that the plugin runs on.
func real() *machine {
	// The kernel's resource manager: other users of the TPM have their own keys and sessions.
	return &machine{
		dir: volume.Dir, bootDir: volume.BootDir, links: "/dev/mapper", mapped: linux{}, grow: grow,
		openTPM: func() (transport.TPMCloser, error) { return linuxtpm.Open("/dev/tpmrm0") },
	}
}

// withTPM calls do with the TPM, for as long as it takes.
func (m *machine) withTPM(do func(keeper) error) error {
	chip, err := m.openTPM()
	if errors.Is(err, fs.ErrNotExist) {
		return errNoTPM
	} else if err != nil {
		return err
	}
	defer chip.Close()
	k := keeper{chip: chip}
	for name, into := range map[string]*[]byte{volume.PublicKey: &k.boot.PublicKey, volume.Signatures: &k.boot.Signatures} {
		data, err := os.ReadFile(filepath.Join(m.bootDir, name))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		*into = data
	}
	return do(k)
}

// early obeys an order of PID 1 about the state partition.
func (m *machine) early(order string) error {
	verb, partition, _ := strings.Cut(order, " ")
	answer := &volume.State{Partition: partition, Sealed: true}
	err := m.withTPM(func(k keeper) error {
		f, err := openDevice(partition, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		switch verb {
		case volume.Create:
			return m.createState(k, f, answer)
		case volume.Open:
			return m.openState(k, f, answer)
		}
		return fmt.Errorf("%s=%q: want %s or %s, and a partition", volume.Order, order, volume.Create, volume.Open)
	})
	if err != nil {
		answer.Device, answer.Message = "", err.Error()
	}
	return errors.Join(err, answer.Write(m.dir))
}

func (m *machine) createState(k keeper, d luks2.Device, answer *volume.State) error {
	v, recovery, err := k.create(d, "STATE", func(*vault) error { return nil })
	if err != nil {
		return fmt.Errorf("seal %s: %w", answer.Partition, err)
	}
	if err := m.show(v, answer); err != nil {
		return err
	}
	return m.keepRecoveryKey(stateID, recovery)
}

func (m *machine) openState(k keeper, d luks2.Device, answer *volume.State) error {
	v, err := k.open(d)
	if err != nil {
		return fmt.Errorf("%s: %w", answer.Partition, err)
	}
	return m.show(v, answer)
}

func (m *machine) show(v *vault, answer *volume.State) (err error) {
	answer.Policy, answer.UnlockedBy = v.policy, byTPM
	answer.Device, answer.Size, err = m.mapped.open(stateID, answer.Partition, v)
	return err
}

// recoveryPrefix and a volume's id name a file that holds a recovery key that nobody has taken yet. It is in memory, as all of /run.
const recoveryPrefix = "recovery-"

func (m *machine) keepRecoveryKey(id, key string) error {
	return os.WriteFile(filepath.Join(m.dir, recoveryPrefix+id), []byte(key), 0o600)
}

// recoveryKeys returns those that nobody has taken, by the id of their volume.
func (m *machine) recoveryKeys() (map[string]string, error) {
	files, err := filepath.Glob(filepath.Join(m.dir, recoveryPrefix+"*"))
	if err != nil {
		return nil, err
	}
	all := map[string]string{}
	for _, file := range files {
		key, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		all[strings.TrimPrefix(filepath.Base(file), recoveryPrefix)] = string(key)
	}
	return all, nil
}

func (m *machine) forgetRecoveryKey(id string) error {
	err := os.Remove(filepath.Join(m.dir, recoveryPrefix+id))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
