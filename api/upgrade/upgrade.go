// Package upgrade is the file that a node upgrades itself with, and that it installs on an empty disk: the image builder writes it, cosictl and the
// plugin upgrade read it, the latter as it arrives.
//
// It is a tar archive (POSIX.1-1988, uncompressed) of
//
//	manifest.json   what it is, with the size and SHA-256 of all that follows
//	manifest.sig    an Ed25519 signature of manifest.json, 64 bytes, if it is signed
//	root            what belongs into a slot: the root's erofs image, and the hash tree behind it
//	kernel.efi      the unified kernel image that runs this root and no other
//	disk            what a whole disk has beside these two, if it can be installed: see Disk
//
// in this order. An upgrade takes root and kernel, an installation all three. The same content and key give the same bytes. It needs the standard library only.
package upgrade

import (
	"archive/tar"
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/cosi-os/cosi/api/layout/verity"
)

// ManifestFile is what the archive begins with.
const ManifestFile = "manifest.json"

// Names in the archive.
const (
	manifestName  = ManifestFile
	signatureName = "manifest.sig"
	rootName      = "root"
	kernelName    = "kernel.efi"
	diskName      = "disk"
)

// format is the version of all this. A node refuses one that it does not know.
const format = 1

// mostManifest is how large a manifest may be.
const mostManifest = 64 << 10

// Manifest says what an upgrade is.
type Manifest struct {
	Format  int    `json:"format"`
	Image   string `json:"image"` // cosi-base-amd64
	Version string `json:"version"`
	Arch    string `json:"arch"`
	// Floor is the lowest version that a node may have which takes it, if there is one.
	Floor string `json:"floor,omitempty"`
	// BIOS is the configuration of GRUB that boots the kernel; empty: no BIOS does.
	BIOS   string `json:"bios,omitempty"`
	Root   Root   `json:"root"`
	Kernel Part   `json:"kernel"`
	// Disk is how a disk is made of this; nil: it is not.
	Disk *Disk `json:"disk,omitempty"`
}

// Part is a file of the archive.
type Part struct {
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
}

// Root is a Part with a hash tree in it.
type Root struct {
	Part
	// Hash is that of the tree's root, in hex; Data is where the tree begins.
	Hash string `json:"hash"`
	Data int64  `json:"data"`
}

func (m *Manifest) check() error {
	if m.Format != format {
		return fmt.Errorf("format %d: want %d", m.Format, format)
	}
	parts := []struct {
		name string
		Part
	}{{rootName, m.Root.Part}, {kernelName, m.Kernel}}
	if m.Disk != nil {
		parts = append(parts, struct {
			name string
			Part
		}{diskName, m.Disk.Part})
	}
	for _, part := range parts {
		if _, err := hex.DecodeString(part.SHA256); err != nil || len(part.SHA256) != 2*sha256.Size || part.Size <= 0 {
			return fmt.Errorf("%s: %d bytes with the SHA-256 %q", part.name, part.Size, part.SHA256)
		}
	}
	if _, err := verity.ParseHash(m.Root.Hash); err != nil {
		return fmt.Errorf("root.hash: %w", err)
	}
	if m.Version == "" || strings.ContainsAny(m.Version, " \t\r\n") || m.Root.Data <= 0 || m.Root.Data >= m.Root.Size {
		return fmt.Errorf("version %q, a tree behind %d of %d bytes", m.Version, m.Root.Data, m.Root.Size)
	}
	if m.Disk != nil {
		if err := m.Disk.check(m.Root.Size, m.Kernel.Size); err != nil {
			return fmt.Errorf("%s: %w", diskName, err)
		}
	}
	return nil
}

// Write writes the upgrade that m describes, but for the hashes of its parts: what is read from root, kernel and, if m has a Disk, disk says them.
// Without a key, which is an Ed25519 one, it is not signed.
func Write(w io.Writer, m Manifest, key crypto.Signer, root, kernel, disk io.ReadSeeker) error {
	m.Format = format
	var err error
	if m.Root.Part, err = sum(root); err == nil {
		m.Kernel, err = sum(kernel)
	}
	if err == nil && m.Disk != nil {
		d := *m.Disk
		d.Part, err = sum(disk)
		m.Disk = &d
	}
	if err == nil {
		err = m.check()
	}
	if err != nil {
		return fmt.Errorf("upgrade: %w", err)
	}
	manifest, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	manifest = append(manifest, '\n')
	if len(manifest) > mostManifest {
		return fmt.Errorf("upgrade: a manifest of %d bytes; at most %d: too many pieces of a disk", len(manifest), mostManifest)
	}
	archive := tar.NewWriter(w)
	add := func(name string, size int64, content io.Reader) {
		if err == nil {
			err = archive.WriteHeader(&tar.Header{Name: name, Size: size, Mode: 0o644, Format: tar.FormatUSTAR})
		}
		if err == nil {
			_, err = io.CopyN(archive, content, size)
		}
	}
	add(manifestName, int64(len(manifest)), strings.NewReader(string(manifest)))
	if key != nil {
		signature, failed := key.Sign(rand.Reader, manifest, crypto.Hash(0))
		if failed != nil {
			return fmt.Errorf("upgrade: sign: %w", failed)
		}
		add(signatureName, ed25519.SignatureSize, bytes.NewReader(signature))
	}
	add(rootName, m.Root.Size, root)
	add(kernelName, m.Kernel.Size, kernel)
	if m.Disk != nil {
		add(diskName, m.Disk.Size, disk)
	}
	if err == nil {
		err = archive.Close()
	}
	if err != nil {
		return fmt.Errorf("upgrade: %w", err)
	}
	return nil
}

// sum reads all of r, and goes back to where it began.
func sum(r io.ReadSeeker) (p Part, err error) {
	h := sha256.New()
	if p.Size, err = io.Copy(h, r); err == nil {
		_, err = r.Seek(0, io.SeekStart)
	}
	p.SHA256 = hex.EncodeToString(h.Sum(nil))
	return p, err
}

// Reader reads an upgrade from its beginning to its end.
type Reader struct {
	Manifest  Manifest
	archive   *tar.Reader
	raw       []byte // the manifest, as it was signed
	signature []byte
	next      *tar.Header
}

// Open reads the manifest. It fails if r begins with none.
func Open(r io.Reader) (*Reader, error) {
	u := &Reader{archive: tar.NewReader(r)}
	if err := u.open(); err != nil {
		return nil, fmt.Errorf("upgrade: %w", err)
	}
	return u, nil
}

func (u *Reader) open() error {
	header, err := u.archive.Next()
	if err != nil {
		return fmt.Errorf("not the file of an upgrade: %w", unexpected(err))
	}
	if header.Name != manifestName || header.Size > mostManifest {
		return fmt.Errorf("not the file of an upgrade: it begins with %q of %d bytes", header.Name, header.Size)
	}
	if u.raw, err = io.ReadAll(u.archive); err != nil {
		return unexpected(err)
	}
	if err := json.Unmarshal(u.raw, &u.Manifest); err != nil {
		return fmt.Errorf("%s: %w", manifestName, err)
	}
	if err := u.Manifest.check(); err != nil {
		return fmt.Errorf("%s: %w", manifestName, err)
	}
	if u.next, err = u.archive.Next(); err != nil {
		return unexpected(err)
	}
	if u.next.Name != signatureName {
		return nil
	}
	u.signature = make([]byte, ed25519.SignatureSize)
	if _, err := io.ReadFull(u.archive, u.signature); err != nil || u.next.Size != ed25519.SignatureSize {
		return fmt.Errorf("%s: %d bytes: %w", signatureName, u.next.Size, unexpected(err))
	}
	u.next, err = u.archive.Next()
	return unexpected(err)
}

// unexpected makes an end an early one.
func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// Signature returns the signature, nil without one.
func (u *Reader) Signature() []byte { return u.signature }

// Signed reports whether there is a signature.
func (u *Reader) Signed() bool { return u.signature != nil }

// SignedBy reports whether the signature is that of one of keys. As the manifest has the hashes of everything, and Root and Kernel check them, it
// is one of all.
func (u *Reader) SignedBy(keys []ed25519.PublicKey) bool {
	for _, key := range keys {
		if u.signature != nil && ed25519.Verify(key, u.raw, u.signature) {
			return true
		}
	}
	return false
}

// Root copies the root to w. It fails, when all of it was written, if that was not what the manifest says.
func (u *Reader) Root(w io.Writer) error { return u.part(w, rootName, u.Manifest.Root.Part) }

// Kernel copies the kernel to w, as Root does. Root has returned.
func (u *Reader) Kernel(w io.Writer) error { return u.following(w, kernelName, u.Manifest.Kernel) }

// following copies the part that comes next.
func (u *Reader) following(w io.Writer, name string, want Part) (err error) {
	if u.next, err = u.archive.Next(); err != nil {
		return fmt.Errorf("upgrade: %w", unexpected(err))
	}
	return u.part(w, name, want)
}

// Close reads on to the end, past the part of a disk that nobody has asked for. It fails if there is something else.
func (u *Reader) Close() error {
	if u.Manifest.Disk != nil && u.next.Name != diskName {
		if err := u.following(io.Discard, diskName, u.Manifest.Disk.Part); err != nil {
			return err
		}
	}
	last := u.next.Name
	header, err := u.archive.Next()
	switch {
	case err == nil:
		return fmt.Errorf("upgrade: %q behind %s", header.Name, last)
	case !errors.Is(err, io.EOF):
		return fmt.Errorf("upgrade: %w", err)
	}
	return nil
}

// Check reads the file of an upgrade to its end. It fails unless all parts are there, as the manifest says.
func Check(r io.Reader) error {
	u, err := Open(r)
	if err == nil {
		err = u.Root(io.Discard)
	}
	if err == nil {
		err = u.Kernel(io.Discard)
	}
	if err == nil {
		err = u.Close()
	}
	return err
}

func (u *Reader) part(w io.Writer, name string, want Part) error {
	if u.next.Name != name || u.next.Size != want.Size {
		return fmt.Errorf("upgrade: %q of %d bytes; want %q of %d", u.next.Name, u.next.Size, name, want.Size)
	}
	h := sha256.New()
	if _, err := io.CopyBuffer(io.MultiWriter(w, h), u.archive, make([]byte, 1<<20)); err != nil {
		return fmt.Errorf("upgrade: %s: %w", name, unexpected(err))
	}
	if err := want.is(h); err != nil {
		return fmt.Errorf("upgrade: %s: %w", name, err)
	}
	return nil
}

// ParseKey reads an Ed25519 public key in PEM (PKIX).
func ParseKey(text string) (ed25519.PublicKey, error) {
	block, _ := pem.Decode([]byte(text))
	if block == nil || block.Type != "PUBLIC KEY" {
		return nil, errors.New("no PUBLIC KEY in PEM")
	}
	key, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	public, ok := key.(ed25519.PublicKey)
	if !ok {
		return nil, fmt.Errorf("%T: want an Ed25519 key", key)
	}
	return public, nil
}

// ParsePrivateKey reads an Ed25519 private key in PEM (PKCS #8), as cosi-image and "openssl genpkey -algorithm ed25519" write it.
func ParsePrivateKey(data []byte) (ed25519.PrivateKey, error) {
	block, _ := pem.Decode(data)
	if block == nil || block.Type != "PRIVATE KEY" {
		return nil, errors.New("no PRIVATE KEY in PEM")
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	private, ok := key.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("%T: want an Ed25519 key", key)
	}
	return private, nil
}

// Older reports whether version a comes before b. The numbers between dots count; what follows + or - does not.
func Older(a, b string) bool {
	x, y := numbers(a), numbers(b)
	for i := range max(len(x), len(y)) {
		var m, n int
		if i < len(x) {
			m = x[i]
		}
		if i < len(y) {
			n = y[i]
		}
		if m != n {
			return m < n
		}
	}
	return false
}

func numbers(version string) (all []int) {
	if i := strings.IndexAny(version, "+-"); i >= 0 {
		version = version[:i]
	}
	for part := range strings.SplitSeq(strings.TrimPrefix(version, "v"), ".") {
		n, _ := strconv.Atoi(part) // what is no number is 0
		all = append(all, n)
	}
	return all
}
