// Package pcr predicts what a TPM will hold once a unified kernel image of ours runs, and signs it: whoever has sealed something to the key of such
// a policy lets every image have it that was signed with that key, and no other.
//
// The image builder signs, cosi-image inspect predicts. The TPM's register is PCR 11, in the bank of SHA-256: systemd-stub extends it with the
// sections of the image (systemd-measure(1), "systemd-stub(7)"). A node of ours adds nothing to it, in no phase of its boot: the value stays until
// the machine goes down.
package pcr

import (
	"bytes"
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"debug/pe"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/cosi-os/cosi/images/content"
	"github.com/cosi-os/cosi/images/secureboot"
)

// Register is the number of the one that is predicted.
const Register = 11

// Value is what a register holds.
type Value [sha256.Size]byte

func (v Value) String() string { return hex.EncodeToString(v[:]) }

// extend is TPM2_PCR_Extend, with the hash of data.
func (v Value) extend(data [sha256.Size]byte) Value { return sha256.Sum256(append(v[:], data[:]...)) }

// measured are the sections that systemd-stub measures, in its order.
var measured = []string{".linux", ".osrel", ".cmdline", ".initrd", ".ucode", ".splash", ".dtb", ".uname", ".sbat", ".pcrpkey"}

// Predict is PCR 11 after systemd-stub has started the kernel of a unified kernel image.
func Predict(image content.Content) (v Value, err error) {
	f, err := pe.NewFile(image)
	if err != nil {
		return v, err
	}
	for _, name := range measured {
		s := f.Section(name)
		if s == nil {
			continue
		}
		v = v.extend(sha256.Sum256([]byte(name + "\x00")))
		h := sha256.New()
		if _, err := io.CopyN(h, s.Open(), int64(min(s.Size, s.VirtualSize))); err != nil {
			return v, fmt.Errorf("section %s: %w", name, err)
		}
		// What it says to be longer in memory than in the file is zeros there.
		if more := int64(s.VirtualSize) - int64(s.Size); more > 0 {
			return v, fmt.Errorf("section %s: %d bytes of it are not in the file", name, more)
		}
		v = v.extend([sha256.Size]byte(h.Sum(nil)))
	}
	return v, nil
}

const (
	commandPolicyPCR = 0x0000017f // TPM_CC_PolicyPCR
	algorithmSHA256  = 0x000b     // TPM_ALG_SHA256
)

// Policy is the digest of the policy that register 11 holds v (Trusted Platform Module Library, part 3, TPM2_PolicyPCR).
func (v Value) Policy() [sha256.Size]byte {
	registers := sha256.Sum256(v[:])
	p := make([]byte, sha256.Size) // the policy so far: none
	p = binary.BigEndian.AppendUint32(p, commandPolicyPCR)
	p = binary.BigEndian.AppendUint32(p, 1) // one bank
	p = binary.BigEndian.AppendUint16(p, algorithmSHA256)
	p = append(p, 3, 0, 1<<(Register-8), 0) // three bytes of registers
	return sha256.Sum256(append(p, registers[:]...))
}

// signature is one policy of the file that systemd keeps in the section .pcrsig.
type signature struct {
	Registers   []int  `json:"pcrs"`
	Fingerprint string `json:"pkfp"` // of the public key
	Policy      string `json:"pol"`
	Signature   string `json:"sig"`
}

// Sign signs the policy that register 11 holds v, in the form of systemd-measure: what belongs into the section .pcrsig. The section .pcrpkey
// holds the key's public half, in PEM.
func Sign(v Value, key crypto.Signer) ([]byte, error) {
	public, ok := key.Public().(*rsa.PublicKey)
	if !ok {
		return nil, errors.New("is no RSA key")
	}
	policy := v.Policy()
	signed, err := secureboot.Sign(key, policy[:])
	if err != nil {
		return nil, err
	}
	fingerprint := sha256.Sum256(x509.MarshalPKCS1PublicKey(public))
	data, err := json.Marshal(map[string][]signature{"sha256": {{
		Registers: []int{Register}, Fingerprint: hex.EncodeToString(fingerprint[:]), Policy: hex.EncodeToString(policy[:]), Signature: base64.StdEncoding.EncodeToString(signed),
	}}})
	return append(data, '\n'), err
}

// Signatures are those in a section .pcrsig.
func Signatures(section []byte) ([][]byte, error) {
	var banks map[string][]signature
	if err := json.Unmarshal(bytes.TrimRight(section, "\x00"), &banks); err != nil {
		return nil, err
	}
	var all [][]byte
	for _, s := range banks["sha256"] {
		signed, err := base64.StdEncoding.DecodeString(s.Signature)
		if err != nil {
			return nil, err
		}
		all = append(all, signed)
	}
	return all, nil
}
