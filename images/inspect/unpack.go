package inspect

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"

	"github.com/cosi-os/cosi/api/upgrade"
	"github.com/cosi-os/cosi/images/internal/sparse"
	"github.com/cosi-os/cosi/images/oci"
	"github.com/cosi-os/cosi/images/vmdk"
)

// unpack unpacks what holds an image, by what it begins with, into a file that nobody else sees, and says what it is. It returns nil if f is no
// such thing.
func unpack(f io.ReaderAt, size int64) (Format, *os.File, error) {
	head := make([]byte, 512)
	n, err := f.ReadAt(head, 0)
	if err != nil && err != io.EOF {
		return "", nil, err
	}
	begins := func(magic string) bool { return bytes.HasPrefix(head[:n], []byte(magic)) }
	all := io.NewSectionReader(f, 0, size)
	switch {
	case begins("KDMV"):
		inner, err := hidden(func(dst *os.File) error { return vmdk.Unpack(dst, all) })
		return VMDK, inner, err
	case begins("\x1f\x8b"):
		return gunzip(all)
	case begins("\x28\xb5\x2f\xfd"):
		z, err := zstd.NewReader(all)
		if err != nil {
			return "", nil, err
		}
		defer z.Close()
		return unpackRaw(RawZstandard, z)
	case begins("\xfd7zXZ\x00"):
		z, err := xz.NewReader(all)
		if err != nil {
			return "", nil, err
		}
		return unpackRaw(RawXZ, z)
	case n > 262 && string(head[257:262]) == "ustar":
		return unpackArchive(all)
	}
	return "", nil, nil
}

// gunzip unpacks a disk, or an archive with one.
func gunzip(r io.Reader) (Format, *os.File, error) {
	z, err := gzip.NewReader(r)
	if err != nil {
		return "", nil, err
	}
	head := make([]byte, 512)
	n, err := io.ReadFull(z, head)
	if err != nil && err != io.ErrUnexpectedEOF {
		return "", nil, err
	}
	plain := io.MultiReader(bytes.NewReader(head[:n]), z)
	if n == 512 && string(head[257:262]) == "ustar" {
		archive := tar.NewReader(plain)
		if _, err := member(archive, func(name string) bool { return name == "disk.raw" }); err != nil {
			return "", nil, err
		}
		return unpackRaw(GCP, archive)
	}
	return unpackRaw(RawGzip, plain)
}

func unpackRaw(format Format, r io.Reader) (Format, *os.File, error) {
	inner, err := hidden(func(dst *os.File) error { return fill(dst, r) })
	if err != nil {
		err = fmt.Errorf("%s: %w", format, err)
	}
	return format, inner, err
}

// unpackArchive unpacks the boot image of an OCI artifact, the disk of an OVA, or that of an upgrade, which it is installed as.
func unpackArchive(r io.ReadSeeker) (Format, *os.File, error) {
	archive := tar.NewReader(r)
	name, err := member(archive, func(name string) bool {
		return name == upgrade.ManifestFile || name == "oci-layout" || strings.HasSuffix(name, ".vmdk")
	})
	switch {
	case err != nil:
		return "", nil, err
	case name == upgrade.ManifestFile:
		inner, err := hidden(func(dst *os.File) error { return unpackUpgrade(dst, r) })
		return Upgrade, inner, err
	case name != "oci-layout":
		inner, err := hidden(func(dst *os.File) error { return vmdk.Unpack(dst, archive) })
		return OVA, inner, err
	}
	blob, err := bootBlob(r)
	if err != nil {
		return "", nil, err
	}
	return unpackRaw(OCI, blob)
}

func unpackUpgrade(dst *os.File, r io.ReadSeeker) error {
	u, err := openUpgrade(r)
	if err != nil {
		return err
	}
	return makeDisk(dst, u)
}

func openUpgrade(r io.ReadSeeker) (*upgrade.Reader, error) {
	if _, err := r.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	return upgrade.Open(r)
}

// bootBlob finds the unified kernel image of an artifact.
func bootBlob(r io.ReadSeeker) (io.Reader, error) {
	list, err := named(r, "index.json")
	if err != nil {
		return nil, err
	}
	index, err := v1.ParseIndexManifest(list)
	if err != nil {
		return nil, fmt.Errorf("index.json: %w", err)
	}
	if len(index.Manifests) == 0 {
		return nil, errForeign
	}
	text, err := named(r, blobName(index.Manifests[0].Digest))
	if err != nil {
		return nil, err
	}
	manifest, err := v1.ParseManifest(text)
	if err != nil {
		return nil, fmt.Errorf("its manifest: %w", err)
	}
	for _, layer := range manifest.Layers {
		if layer.MediaType == oci.UKI {
			return named(r, blobName(layer.Digest))
		}
	}
	return nil, errForeign
}

func blobName(h v1.Hash) string { return "blobs/" + h.Algorithm + "/" + h.Hex }

// named returns a file of an archive.
func named(r io.ReadSeeker, name string) (io.Reader, error) {
	if _, err := r.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	archive := tar.NewReader(r)
	if _, err := member(archive, func(found string) bool { return found == name }); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return archive, nil
}

// member goes to the first file of an archive that is wanted.
func member(archive *tar.Reader, wanted func(name string) bool) (string, error) {
	for {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return "", errForeign
		}
		if err != nil {
			return "", err
		}
		if wanted(header.Name) {
			return header.Name, nil
		}
	}
}

// hidden makes a file without a name.
func hidden(write func(*os.File) error) (*os.File, error) {
	f, err := os.CreateTemp("", "cosi-image-")
	if err != nil {
		return nil, err
	}
	if err := errors.Join(os.Remove(f.Name()), write(f)); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// fill copies r, and leaves holes for zeros.
func fill(dst *os.File, r io.Reader) error {
	block, size := make([]byte, 64<<10), int64(0)
	for {
		n, err := io.ReadFull(r, block)
		if n > 0 && !sparse.Zero(block[:n]) {
			if _, err := dst.WriteAt(block[:n], size); err != nil {
				return err
			}
		}
		size += int64(n)
		switch {
		case err == io.EOF || err == io.ErrUnexpectedEOF:
			return dst.Truncate(size)
		case err != nil:
			return err
		}
	}
}
