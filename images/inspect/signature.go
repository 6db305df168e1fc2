package inspect

import (
	"bytes"
	"cmp"
	"crypto/x509/pkix"
	"debug/pe"
	"encoding/asn1"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"

	"github.com/smallstep/pkcs7"
)

// Signature says who has signed a part of an image, as the signature names him. Whether it is a good one is for the firmware and the kernel to
// say, who know whom they trust.
type Signature struct {
	// Of is what is signed: "boot image", "kernel", "51 modules".
	Of string `json:"of"`
	// Signer is empty when there is no signature.
	Signer string `json:"signer"`
}

func (s Signature) String() string { return s.Of + ": " + cmp.Or(s.Signer, "not signed") }

// signatures are those of the boot image, the kernel in it and the modules in the root.
func (i *Image) signatures() ([]Signature, error) {
	var all []Signature
	if i.boot != nil {
		signer, err := authenticode(i.boot, i.raw)
		if err != nil {
			return nil, fmt.Errorf("the boot image's signature: %w", err)
		}
		all = append(all, Signature{"boot image", signer})
		if s := i.boot.Section(".linux"); s != nil {
			linux := io.NewSectionReader(s, 0, int64(min(s.Size, s.VirtualSize)))
			image, err := pe.NewFile(linux)
			if err == nil {
				signer, err = authenticode(image, linux)
			}
			if err != nil {
				return nil, fmt.Errorf("the kernel's signature: %w", err)
			}
			all = append(all, Signature{"kernel", signer})
		}
	}
	modules, err := moduleSigners(i.Root)
	if err != nil {
		return nil, err
	}
	return append(all, modules...), nil
}

// authenticode is who has signed an EFI program (Microsoft's "Windows Authenticode Portable Executable Signature Format").
func authenticode(image *pe.File, r *io.SectionReader) (string, error) {
	header, ok := image.OptionalHeader.(*pe.OptionalHeader64)
	if !ok {
		return "", errors.New("no program of a 64-bit machine")
	}
	if header.NumberOfRvaAndSizes <= pe.IMAGE_DIRECTORY_ENTRY_SECURITY {
		return "", nil
	}
	// Of this directory alone the address is an offset in the file.
	directory := header.DataDirectory[pe.IMAGE_DIRECTORY_ENTRY_SECURITY]
	if directory.Size == 0 {
		return "", nil
	}
	const certificateHeader = 8 // length, revision, type: WIN_CERTIFICATE
	if directory.Size <= certificateHeader || int64(directory.VirtualAddress)+int64(directory.Size) > r.Size() {
		return "", errors.New("its table of certificates is not in the file")
	}
	data := make([]byte, directory.Size)
	if _, err := r.ReadAt(data, int64(directory.VirtualAddress)); err != nil {
		return "", err
	}
	length := binary.LittleEndian.Uint32(data)
	if length <= certificateHeader || int64(length) > int64(len(data)) {
		return "", fmt.Errorf("its certificate has %d bytes", length)
	}
	return signer(data[certificateHeader:length])
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
		all = append(all, Signature{fmt.Sprintf("%d modules", n), by})
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
	return signer(rest[int64(len(rest))-length:])
}

// signer is whom a PKCS #7 message names: the certificate that it carries, or whoever issued the one that it refers to.
func signer(message []byte) (string, error) {
	m, err := pkcs7.Parse(message)
	if err != nil {
		return "", err
	}
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
