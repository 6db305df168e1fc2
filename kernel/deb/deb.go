// Package deb reads the files of a Debian package: an ar archive with a compressed tar archive in it.
//
// The fetcher unpacks pinned packages with it, without dpkg and without root. What it reads has been checked by its hash before.
package deb

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"path"
	"strconv"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// ErrFormat says that the input is not a Debian package.
var ErrFormat = errors.New("not a Debian package")

// File is one regular file of a package. It is read before Walk goes on.
type File struct {
	Path string // "usr/lib/modules/…", without a leading slash
	Size int64
	io.Reader
}

// Walk calls visit with every regular file in the order of the archive. It stops at the first error, which it returns. Links, devices
// and directories are left out; a path that leaves the archive's root is an error.
func Walk(r io.Reader, visit func(File) error) error {
	data, err := open(bufio.NewReaderSize(r, 1<<16))
	if err != nil {
		return err
	}
	defer data.Close()
	archive := tar.NewReader(data)
	for {
		header, err := archive.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("data archive: %w", err)
		}
		if header.Typeflag != tar.TypeReg {
			continue
		}
		name := path.Clean(header.Name)
		if path.IsAbs(name) || name == ".." || strings.HasPrefix(name, "../") {
			return fmt.Errorf("data archive: %q leaves the archive: %w", header.Name, ErrFormat)
		}
		if err := visit(File{Path: name, Size: header.Size, Reader: archive}); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
}

const (
	arMagic  = "!<arch>\n"
	arHeader = 60
)

// open finds the member data.tar.* and returns what it decompresses to.
func open(r io.Reader) (io.ReadCloser, error) {
	magic := make([]byte, len(arMagic))
	if _, err := io.ReadFull(r, magic); err != nil || string(magic) != arMagic {
		return nil, fmt.Errorf("no ar archive: %w", ErrFormat)
	}
	for {
		name, size, err := member(r)
		if err != nil {
			return nil, err
		}
		if compression, ok := strings.CutPrefix(name, "data.tar"); ok {
			return decompress(io.LimitReader(r, size), compression)
		}
		// Members begin at even offsets.
		if _, err := io.CopyN(io.Discard, r, size+size&1); err != nil {
			return nil, fmt.Errorf("member %q: %w", name, err)
		}
	}
}

// member reads a member's header: name (16 bytes), time, owner, group, mode, size (10 bytes at 48), and an end mark.
func member(r io.Reader) (name string, size int64, err error) {
	header := make([]byte, arHeader)
	if _, err := io.ReadFull(r, header); err != nil {
		return "", 0, fmt.Errorf("no data archive: %w", ErrFormat)
	}
	if !bytes.Equal(header[58:], []byte("`\n")) {
		return "", 0, fmt.Errorf("damaged member header: %w", ErrFormat)
	}
	size, err = strconv.ParseInt(strings.TrimRight(string(header[48:58]), " "), 10, 64)
	if err != nil || size < 0 {
		return "", 0, fmt.Errorf("damaged member size: %w", ErrFormat)
	}
	return strings.TrimRight(string(header[:16]), " /"), size, nil
}

func decompress(r io.Reader, compression string) (io.ReadCloser, error) {
	switch compression {
	case "":
		return io.NopCloser(r), nil
	case ".gz":
		return gzip.NewReader(r)
	case ".xz":
		d, err := xz.NewReader(r)
		if err != nil {
			return nil, err
		}
		return io.NopCloser(d), nil
	case ".zst":
		d, err := zstd.NewReader(r)
		if err != nil {
			return nil, err
		}
		return d.IOReadCloser(), nil
	}
	return nil, fmt.Errorf("data.tar%s: unknown compression: %w", compression, ErrFormat)
}
