// Package initramfs writes the archive that the kernel unpacks into memory: the engine as /init, the root file system's image unless that is
// on a disk, and the modules that mounting it takes.
//
// The image builder calls it. The same files give the same bytes.
package initramfs

import (
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	"github.com/pierrec/lz4/v4"
	"github.com/u-root/u-root/pkg/cpio"

	"github.com/cosi-os/cosi/images/content"
)

// Compression is how the archive is packed. Unpacking costs boot time, reading costs boot time too: see Raw and LZ4.
type Compression string

const (
	Raw Compression = "none" // nothing to unpack; the firmware reads more
	LZ4 Compression = "lz4"  // about half the size, a quarter of a second for 90 MB
)

// Compressions are all there are.
var Compressions = []Compression{Raw, LZ4}

// ErrPath says that a file's path cannot be in an archive.
var ErrPath = errors.New("not a path of an archive")

// File is one regular file. Its parents are made, with mode 0755.
type File struct {
	Path       string // "usr/lib/modules/…", without a leading slash
	Executable bool
	Content    content.Content
}

// Write writes the archive. Beside files it holds /dev/console, which the kernel opens for its first process before anything is mounted.
func Write(w io.Writer, files []File, c Compression) error {
	records, err := records(files)
	if err != nil {
		return err
	}
	packed, closer, err := compress(w, c)
	if err != nil {
		return err
	}
	archive := cpio.Newc.Writer(packed)
	if err := cpio.WriteRecords(archive, records); err != nil {
		return err
	}
	if err := cpio.WriteTrailer(archive); err != nil {
		return err
	}
	return closer()
}

func records(files []File) ([]cpio.Record, error) {
	all := []cpio.Record{cpio.Directory("dev", 0o755), cpio.CharDev("dev/console", 0o600, 5, 1)}
	made := map[string]bool{"dev": true, "dev/console": true}
	files = slices.Clone(files)
	slices.SortFunc(files, func(a, b File) int { return strings.Compare(a.Path, b.Path) })
	for _, f := range files {
		if f.Path == "" || path.Clean("/"+f.Path) != "/"+f.Path || made[f.Path] {
			return nil, fmt.Errorf("%q: %w", f.Path, ErrPath)
		}
		for i, c := range f.Path {
			if c == '/' && !made[f.Path[:i]] {
				made[f.Path[:i]] = true
				all = append(all, cpio.Directory(f.Path[:i], 0o755))
			}
		}
		made[f.Path] = true
		mode := uint64(cpio.S_IFREG | 0o644)
		if f.Executable {
			mode |= 0o111
		}
		all = append(all, cpio.Record{
			// A section: the archive would close a file once it has read it.
			ReaderAt: content.Reader(f.Content),
			Info:     cpio.Info{Name: f.Path, Mode: mode, FileSize: uint64(f.Content.Size())},
		})
	}
	cpio.MakeAllReproducible(all)
	return all, nil
}

func compress(w io.Writer, c Compression) (io.Writer, func() error, error) {
	switch c {
	case Raw:
		return w, func() error { return nil }, nil
	case LZ4:
		// The kernel reads the legacy format only. Its higher levels take ten times as long, for a tenth of the size.
		z := lz4.NewWriter(w)
		if err := z.Apply(lz4.LegacyOption(true), lz4.CompressionLevelOption(lz4.Fast), lz4.ConcurrencyOption(2)); err != nil {
			return nil, nil, err
		}
		return z, z.Close, nil
	}
	return nil, nil, fmt.Errorf("%q is not a compression (%v)", c, Compressions)
}
