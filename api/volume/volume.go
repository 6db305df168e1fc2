// Package volume is what PID 1 and the plugin volume say to each other about the state partition, before there is a runtime: PID 1 starts the plugin
// with an Order in its environment, and reads the Answer when it has ended. The plugin reads it later, too, to show it. It needs the standard
// library only.
package volume

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
)

// Plugin is the plugin's name.
const Plugin = "volume"

// Order is the environment variable with what is to be done: one of the words, and the partition: "open /dev/vda5".
const Order = "COSI_VOLUME"

const (
	// Create makes a volume on a partition that holds nothing of value, and opens it.
	Create = "create"
	// Open opens one.
	Open = "open"
)

// Dir is the plugin's own directory.
const Dir = "/run/cosi/volume"

// Where PID 1 keeps what systemd-stub has handed over of the image that was booted (sections .pcrpkey and .pcrsig).
const (
	BootDir    = "/run/cosi/boot"
	PublicKey  = "tpm2-pcr-public-key.pem"
	Signatures = "tpm2-pcr-signature.json"
)

// State is what became of the state partition.
type State struct {
	// Partition that it is on.
	Partition string `json:"partition"`
	// Sealed: it is encrypted.
	Sealed bool `json:"sealed"`
	// Device shows what is in it, of Size bytes; empty if it was not opened.
	Device string `json:"device,omitempty"`
	Size   int64  `json:"size,omitempty"`
	// Policy that the TPM asks for, in words.
	Policy string `json:"policy,omitempty"`
	// UnlockedBy is "tpm".
	UnlockedBy string `json:"unlockedBy,omitempty"`
	// Message says why it was not opened, or not sealed.
	Message string `json:"message,omitempty"`
}

// AnswerFile is where it is kept below a directory, which is Dir.
const AnswerFile = "state.json"

// Write keeps s in a directory.
func (s *State) Write(dir string) error {
	data, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, AnswerFile), data, 0o600)
}

// Read reads it again. It fails with fs.ErrNotExist if there is none.
func Read(dir string) (*State, error) {
	file := filepath.Join(dir, AnswerFile)
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	s := &State{}
	if err := json.Unmarshal(data, s); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return s, nil
}
