package volume

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/google/go-tpm/tpm2/transport"
	"github.com/google/uuid"

	"github.com/cosi-os/cosi/api/layout/luks2"
	"github.com/cosi-os/cosi/plugins/internal/tpmseal"
)

// keeper is the TPM, and what the image that runs says of itself.
type keeper struct {
	chip transport.TPM
	boot tpmseal.Boot
}

// vault is a volume whose key is known.
type vault struct {
	header *luks2.Header
	key    []byte
	policy string
}

// recoveryToken marks the keyslot of a recovery key, as systemd-cryptenroll does.
type recoveryToken struct {
	Type     string   `json:"type"`
	Keyslots []string `json:"keyslots"`
}

// create makes a volume on a device, and its recovery key. ready is called before anything is written, with the vault as it will be.
func (k keeper) create(d luks2.Device, label string, ready func(*vault) error) (v *vault, recovery string, err error) {
	h, key, err := luks2.New(uuid.NewString(), label)
	if err != nil {
		return nil, "", err
	}
	passphrase, token, err := tpmseal.Seal(k.chip, k.boot)
	if err != nil {
		return nil, "", err
	}
	v = &vault{h, key, token.Describe()}
	if err := ready(v); err != nil {
		return nil, "", err
	}
	if err := v.add(d, passphrase, token); err != nil {
		return nil, "", err
	}
	recovery = newRecoveryKey()
	slot, err := h.Add(d, key, []byte(recovery))
	if err == nil {
		err = h.AddToken(recoveryToken{"systemd-recovery", []string{slot}})
	}
	if err == nil {
		err = h.Write(d)
	}
	return v, recovery, err
}

// add gives a passphrase that the TPM keeps a keyslot.
func (v *vault) add(d luks2.Device, passphrase []byte, token *tpmseal.Token) error {
	slot, err := v.header.Add(d, v.key, passphrase)
	if err != nil {
		return err
	}
	token.Keyslots = []string{slot}
	return v.header.AddToken(token)
}

// errLocked says that the TPM does not open a volume: errors of tpmseal are why.
var errLocked = errors.New("the TPM does not open it")

// open has the TPM open a volume. It fails with errLocked if it does not.
func (k keeper) open(d io.ReaderAt) (*vault, error) {
	h, err := luks2.Read(d)
	if err != nil {
		return nil, err
	}
	reason := errors.New("it was never sealed to one")
	for _, raw := range h.Tokens(tpmseal.TokenType) {
		var token *tpmseal.Token
		if token, reason = tpmseal.Parse(raw); reason != nil {
			continue
		}
		var passphrase []byte
		if passphrase, reason = token.Unseal(k.chip, k.boot); reason != nil {
			continue
		}
		var key []byte
		if key, _, reason = h.Unlock(d, passphrase); reason == nil {
			return &vault{h, key, token.Describe()}, nil
		}
	}
	return nil, fmt.Errorf("%w: %w", errLocked, reason)
}

// reseal opens a volume by its recovery key, and seals it to the TPM, which alone opens it then beside the recovery key. It fails with
// luks2.ErrPassphrase if it is not the key. A loss of power meanwhile leaves it as it was.
func (k keeper) reseal(d luks2.Device, recovery string) (*vault, error) {
	h, err := luks2.Read(d)
	if err != nil {
		return nil, err
	}
	key, _, err := h.Unlock(d, []byte(spellRecoveryKey(recovery)))
	if err != nil {
		return nil, err
	}
	passphrase, token, err := tpmseal.Seal(k.chip, k.boot)
	if err != nil {
		return nil, err
	}
	v := &vault{h, key, token.Describe()}
	var old []string
	for _, raw := range h.Tokens(tpmseal.TokenType) {
		if t, err := tpmseal.Parse(raw); err == nil {
			old = append(old, t.Keyslots...)
		}
	}
	if err := v.add(d, passphrase, token); err != nil {
		return nil, err
	}
	var wipes []func(luks2.Device) error
	for _, slot := range old {
		wipes = append(wipes, h.Remove(slot))
	}
	if err := h.Write(d); err != nil {
		return nil, err
	}
	for _, wipe := range wipes {
		if err := wipe(d); err != nil {
			return nil, err
		}
	}
	return v, nil
}

// try fails with luks2.ErrPassphrase if a volume is not opened by a recovery key.
func try(d io.ReaderAt, recovery string) error {
	h, err := luks2.Read(d)
	if err == nil {
		_, _, err = h.Unlock(d, []byte(spellRecoveryKey(recovery)))
	}
	return err
}

// modhex are letters that are in the same place on most keyboards: systemd's recovery keys are written in them.
const modhex = "cbdefghijklnrtuv"

const (
	recoveryBytes = 32
	recoveryGroup = 8
)

// newRecoveryKey is 256 bits as 64 letters, in groups.
func newRecoveryKey() string {
	secret := make([]byte, recoveryBytes)
	rand.Read(secret) // never fails: see its documentation
	var letters []byte
	for _, b := range secret {
		letters = append(letters, modhex[b>>4], modhex[b&0xf])
	}
	return grouped(string(letters))
}

func grouped(letters string) string {
	var groups []string
	for ; len(letters) > recoveryGroup; letters = letters[recoveryGroup:] {
		groups = append(groups, letters[:recoveryGroup])
	}
	return strings.Join(append(groups, letters), "-")
}

// spellRecoveryKey is a recovery key as it was made, however somebody has typed it. What is none stays as it is.
func spellRecoveryKey(typed string) string {
	letters := strings.Map(func(r rune) rune {
		switch {
		case r == '-' || r == ' ' || r == '\n' || r == '\r' || r == '\t':
			return -1
		case r >= 'A' && r <= 'Z':
			return r - 'A' + 'a'
		}
		return r
	}, typed)
	if len(letters) != 2*recoveryBytes || strings.Trim(letters, modhex) != "" {
		return typed
	}
	return grouped(letters)
}

// granted is how long PID 1 may take to let the plugin open a device that is new.
const granted = 5 * time.Second

// openDevice opens a block device to write to it.
func openDevice(path string, flags int) (*os.File, error) {
	for began := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		f, err := os.OpenFile(path, os.O_RDWR|flags, 0)
		if !errors.Is(err, fs.ErrPermission) || time.Since(began) > granted {
			return f, err
		}
	}
}
