package upgrade

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"runtime"
	"strings"

	"github.com/cosi-os/cosi/api/layout/bootentry"
	"github.com/cosi-os/cosi/api/layout/fat"
	"github.com/cosi-os/cosi/api/layout/verity"
	"github.com/cosi-os/cosi/api/upgrade"
)

// policy is whose upgrades are taken.
type policy struct {
	keys     []ed25519.PublicKey
	unsigned bool
}

// terms are what an upgrade must be.
type terms struct {
	policy
	digest  string
	version string // empty: any
}

// Errors of install, beside those of reading the upgrade's file.
var (
	errRefused = errors.New("refused")
	errBroken  = errors.New("broken") // it is not what was asked for, or does not arrive on the disk
)

func refused(format string, args ...any) error {
	return fmt.Errorf("%w: %s", errRefused, fmt.Sprintf(format, args...))
}

// why is what a refusal says, without that it is one.
func why(err error) string { return strings.TrimPrefix(err.Error(), errRefused.Error()+": ") }

// allow refuses what nobody may have the node run, or is not what is asked for.
func (t terms) allow(u *upgrade.Reader) error {
	is := u.Manifest
	switch {
	case u.Signed() && !u.SignedBy(t.keys) && !(t.unsigned && len(t.keys) == 0):
		return refused("it is signed by none of the %d keys that UpgradePolicies names", len(t.keys))
	case !u.Signed() && !t.unsigned:
		return refused("it is not signed, and UpgradePolicies does not allow that")
	case is.Arch != runtime.GOARCH:
		return refused("it is for %s, and this is %s", is.Arch, runtime.GOARCH)
	case t.version != "" && is.Version != t.version:
		return refused("it is version %s, and %s is asked for", is.Version, t.version)
	}
	return nil
}

// preflight refuses what will not do.
func (m *machine) preflight(u *upgrade.Reader, t terms) error {
	is := u.Manifest
	if err := t.allow(u); err != nil {
		return err
	}
	switch {
	case is.Floor != "" && upgrade.Older(m.version, is.Floor):
		return refused("it takes a node of version %s at least, and this is %s: upgrade to one in between first", is.Floor, m.version)
	case m.firmware == bios && is.BIOS == "":
		return refused("no BIOS boots it, and this node was booted by one")
	case is.Root.Size > m.other.size:
		return refused("its root has %d bytes, and %s (%s) has %d", is.Root.Size, m.other.name, m.other.node, m.other.size)
	case is.Root.Hash == m.root.String():
		return refused("the node runs it already")
	}
	return nil
}

// install writes an upgrade into the slot that the node does not run from, and its kernel beside that of the node. It does not make it bootable. It
// fails with errRefused before anything is written, with errBroken when what arrived is not whole and right, and otherwise with what made
// source fail.
func (m *machine) install(source io.Reader, t terms, opened func(upgrade.Manifest)) error {
	in := newInput(source)
	u, err := upgrade.Open(in)
	if err == nil {
		opened(u.Manifest)
		if err = m.preflight(u, t); err != nil {
			return err
		}
		err = m.write(u)
	}
	return in.end(err, t.digest)
}

// write does the work of install, in the order that the package's documentation gives.
func (m *machine) write(u *upgrade.Reader) error {
	is := u.Manifest
	root, err := verity.ParseHash(is.Root.Hash)
	if err != nil {
		return err
	}
	if err := m.withESP(func(system *fat.FS) error {
		if err := m.forget(system); err != nil {
			return err
		}
		if free := system.Free(); free < is.Kernel.Size+spare {
			return refused("its kernel has %d bytes, and there are %d free on the EFI system partition", is.Kernel.Size, free)
		}
		return nil
	}); err != nil {
		return err
	}
	if err := m.writeRoot(u); err != nil {
		return fmt.Errorf("%s: %w", m.other.node, err)
	}
	if err := m.checkRoot(is.Root, root); err != nil {
		return fmt.Errorf("%s, read back: %w", m.other.node, err)
	}
	return m.withESP(func(system *fat.FS) error { return writeKernel(system, u, root) })
}

// spare is what is left of the EFI system partition for entries, when a kernel has been written.
const spare = 1 << 20

func (m *machine) writeRoot(u *upgrade.Reader) error {
	d, err := m.open(m.other.node)
	if err != nil {
		return err
	}
	err = u.Root(io.NewOffsetWriter(d, 0))
	if err == nil {
		err = d.Sync()
	}
	return errors.Join(err, d.Close())
}

// checkRoot reads the slot from the medium: the hash tree must be that of the image before it, and its root the one that the kernel will want.
func (m *machine) checkRoot(is upgrade.Root, want verity.Hash) error {
	d, err := m.reread(m.other.node)
	if err != nil {
		return err
	}
	defer d.Close()
	area, got, err := verity.Make(d, is.Data)
	if err != nil {
		return err
	}
	if got != want {
		return fmt.Errorf("the hash of its root is %s; want %s", got, want)
	}
	there := make([]byte, len(area))
	if int64(len(area)) != is.Size-is.Data {
		return fmt.Errorf("a hash tree of %d bytes; want %d", is.Size-is.Data, len(area))
	}
	if _, err := d.ReadAt(there, is.Data); err != nil {
		return err
	}
	if string(there) != string(area) {
		return errors.New("its hash tree is not that of the image")
	}
	return nil
}

// writeKernel has the kernel written while it arrives. One that turns out to be wrong is removed.
func writeKernel(system *fat.FS, u *upgrade.Reader, root verity.Hash) error {
	r, w := io.Pipe()
	arrived := make(chan error, 1)
	go func() {
		err := u.Kernel(w)
		w.CloseWithError(err)
		arrived <- err
	}()
	err := kernel(system, root, u.Manifest.Kernel.Size, r, u.Manifest.BIOS)
	r.CloseWithError(err) // if there is an error: nobody reads on
	if failed := <-arrived; err == nil && failed != nil {
		return errors.Join(failed, system.Remove(bootentry.Entry{Root: root}.Kernel()))
	}
	if err != nil {
		return err
	}
	return u.Close()
}

// input is the source, hashed. It keeps its error, which tells a source that failed from one that brought the wrong thing.
type input struct {
	r      io.Reader
	digest hash.Hash
	failed error
}

func newInput(source io.Reader) *input { return &input{r: source, digest: sha256.New()} }

// end reads on to the end. It fails with what made the source fail, with errRefused if err is that, and with errBroken if err is another, or the
// source was not what has the digest.
func (in *input) end(err error, digest string) error {
	if err == nil {
		_, err = io.Copy(io.Discard, in) // what pads the archive is in the digest, too
	}
	switch got := hex.EncodeToString(in.digest.Sum(nil)); {
	case in.failed != nil:
		return in.failed
	case errors.Is(err, errRefused):
		return err
	case err != nil:
		return fmt.Errorf("%w: %w", errBroken, err)
	case got != digest:
		return fmt.Errorf("%w: the SHA-256 of its file is %s, and %s is asked for", errBroken, got, digest)
	}
	return nil
}

func (in *input) Read(p []byte) (int, error) {
	n, err := in.r.Read(p)
	in.digest.Write(p[:n])
	if err != nil && !errors.Is(err, io.EOF) {
		in.failed = err
	}
	return n, err
}
