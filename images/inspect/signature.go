package inspect

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/smallstep/pkcs7"

	"github.com/cosi-os/cosi/images/content"
	"github.com/cosi-os/cosi/images/pcr"
	"github.com/cosi-os/cosi/images/secureboot"
	"github.com/cosi-os/cosi/images/uki"
)

// Signature says who has signed a part of an image, as the signature names him. Whether he is to be trusted is for the firmware and the kernel to
// say.
type Signature struct {
	// Of is what is signed: "upgrade", "boot image", "kernel", "51 modules".
	Of string `json:"of"`
	// Signer is empty when there is no signature.
	Signer string `json:"signer"`
	// Certificate is the signer's, where the signature of an EFI program holds it.
	Certificate *Certificate `json:"certificate,omitempty"`
	// Wrong says why a firmware that trusts the certificate would refuse the program all the same.
	Wrong string `json:"wrong,omitempty"`
}

// Certificate is a signer's.
type Certificate struct {
	Issuer    string    `json:"issuer"`
	Serial    string    `json:"serial"`
	NotBefore time.Time `json:"not_before"`
	NotAfter  time.Time `json:"not_after"`
	SHA256    string    `json:"sha256"` // of its DER form
}

func (s Signature) String() string {
	text := s.Of + ": " + cmp.Or(s.Signer, "not signed")
	if c := s.Certificate; c != nil {
		text += fmt.Sprintf(", certificate %s… until %s", c.SHA256[:16], c.NotAfter.UTC().Format(time.DateOnly))
	}
	if s.Wrong != "" {
		text += "; NOT GOOD: " + s.Wrong
	}
	return text
}

// signatures are those of the file of an upgrade, the boot loader, the boot image, the kernel in it and the modules in the root.
func (i *Image) signatures() ([]Signature, error) {
	var all []Signature
	add := func(of string, program content.Content) error {
		signed, err := secureboot.Signatures(program)
		if err != nil {
			return fmt.Errorf("the %s's signature: %w", of, err)
		}
		for _, s := range signed {
			one, err := describe(of, s)
			if err != nil {
				return fmt.Errorf("the %s's signature: %w", of, err)
			}
			all = append(all, one)
		}
		if len(signed) == 0 {
			all = append(all, Signature{Of: of})
		}
		return nil
	}
	if i.Format == Upgrade {
		all = append(all, Signature{Of: "upgrade", Signer: map[bool]string{true: "an Ed25519 key"}[i.upgrade != nil]})
	}
	if i.loader != nil {
		if err := add("boot loader", i.loader); err != nil {
			return nil, err
		}
	}
	if i.boot != nil {
		if err := add("boot image", i.raw); err != nil {
			return nil, err
		}
		if s := i.boot.Section(".linux"); s != nil {
			if err := add("kernel", io.NewSectionReader(s, 0, int64(min(s.Size, s.VirtualSize)))); err != nil {
				return nil, err
			}
		}
	}
	modules, err := moduleSigners(i.Root)
	if err != nil {
		return nil, err
	}
	return append(all, modules...), nil
}

func describe(of string, s *secureboot.Signature) (Signature, error) {
	one := Signature{Of: of}
	if s.Wrong != nil {
		one.Wrong = s.Wrong.Error()
	}
	if c := s.Certificate; c != nil {
		hash := sha256.Sum256(c.Raw)
		one.Signer = c.Subject.String()
		one.Certificate = &Certificate{c.Issuer.String(), c.SerialNumber.Text(16), c.NotBefore, c.NotAfter, hex.EncodeToString(hash[:])}
		return one, nil
	}
	var err error
	one.Signer, err = signer(s.PKCS7)
	return one, err
}

// SignatureBytes are what the keys have made that an image was signed with: the signatures of the boot loader and the boot image, and of its policy
// for a TPM; of a medium also those of what it installs.
func (i *Image) SignatureBytes() ([][]byte, error) {
	own, err := i.ownSignatures()
	if err != nil {
		return nil, err
	}
	return i.withInstalled(own)
}

func (i *Image) ownSignatures() ([][]byte, error) {
	var all [][]byte
	for _, program := range []*io.SectionReader{i.loader, i.raw} {
		if program == nil {
			continue
		}
		signed, err := secureboot.Signatures(program)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", i.path, err)
		}
		for _, s := range signed {
			all = append(all, s.Bytes())
		}
	}
	if i.upgrade != nil {
		all = append(all, i.upgrade)
	}
	if i.boot == nil || i.boot.Section(uki.PolicySignature) == nil {
		return all, nil
	}
	data, err := i.boot.Section(uki.PolicySignature).Data()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", i.path, err)
	}
	policies, err := pcr.Signatures(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %s: %w", i.path, uki.PolicySignature, err)
	}
	return append(all, policies...), nil
}

const (
	moduleMagic     = "~Module signature appended~\n"
	moduleSignature = 12 // struct module_signature; its last four bytes are the length of what is before it, big-endian
)

// moduleSigners counts who has signed the kernel's modules.
func moduleSigners(root fs.FS) ([]Signature, error) {
	count := map[string]int{}
	err := fs.WalkDir(root, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || !strings.HasSuffix(name, ".ko") {
			return err
		}
		data, err := fs.ReadFile(root, name)
		if err != nil {
			return err
		}
		by, err := moduleSigner(data)
		if err != nil {
			return fmt.Errorf("/%s: its signature: %w", name, err)
		}
		count[by]++
		return nil
	})
	var all []Signature
	for by, n := range count {
		all = append(all, Signature{Of: fmt.Sprintf("%d modules", n), Signer: by})
	}
	slices.SortFunc(all, func(a, b Signature) int { return strings.Compare(a.Signer, b.Signer) })
	return all, err
}

func moduleSigner(data []byte) (string, error) {
	rest, ok := bytes.CutSuffix(data, []byte(moduleMagic))
	if !ok {
		return "", nil
	}
	if len(rest) < moduleSignature {
		return "", errors.New("cut off")
	}
	length := int64(binary.BigEndian.Uint32(rest[len(rest)-4:]))
	rest = rest[:len(rest)-moduleSignature]
	if length > int64(len(rest)) {
		return "", fmt.Errorf("%d bytes are not in the file", length)
	}
	m, err := pkcs7.Parse(rest[int64(len(rest))-length:])
	if err != nil {
		return "", err
	}
	return signer(m)
}

// signer is whom a PKCS #7 message names: the certificate that it carries, or whoever issued the one that it refers to.
func signer(m *pkcs7.PKCS7) (string, error) {
	if certificate := m.GetOnlySigner(); certificate != nil {
		return certificate.Subject.String(), nil
	}
	if len(m.Signers) == 0 {
		return "", errors.New("nobody signs")
	}
	var rdn pkix.RDNSequence
	if _, err := asn1.Unmarshal(m.Signers[0].IssuerAndSerialNumber.IssuerName.FullBytes, &rdn); err != nil {
		return "", err
	}
	var name pkix.Name
	name.FillFromRDNSequence(&rdn)
	return name.String(), nil
}
