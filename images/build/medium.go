package build

import (
	"bufio"
	"bytes"
	"cmp"
	"errors"
	"io"
	"os"
	"slices"

	"github.com/cosi-os/cosi/api/upgrade"
	"github.com/cosi-os/cosi/images/content"
	"github.com/cosi-os/cosi/images/iso"
	"github.com/cosi-os/cosi/images/manifest"
)

// iso writes the medium, and with it what is missing there of the file of an upgrade.
func (w *writer) iso(f *os.File) error {
	esp, err := w.esp(w.boot)
	if err != nil {
		return err
	}
	spec := iso.Spec{Label: "COSI", VolumeID: w.volume(), ESP: esp, Loader: w.parts.loader, Time: w.in.Epoch}
	var recipe *content.File
	spec.Upgrade = func(medium *os.File) (content.Content, error) {
		if there, err := w.recipe(medium); !there || err != nil {
			return nil, err
		}
		recipe, err = content.Open(w.path(recipeSuffix))
		return recipe, err
	}
	err = spec.Write(f)
	if recipe != nil {
		recipe.Close()
	}
	return err
}

// recipeSuffix is that of upgrade.MediumFile before it is on the medium.
const recipeSuffix = ".recipe"

// recipe makes upgrade.MediumFile. Root, kernel and engine are large, and on the medium already. A root that is compressed with its initramfs cannot be
// had from there: then there is no recipe, as it would be half of the medium again.
func (w *writer) recipe(medium *os.File) (there bool, err error) {
	path := w.path(".upgrade")
	file, err := content.Open(path)
	if err != nil {
		return false, err
	}
	defer file.Close()
	written, err := content.Open(medium.Name())
	if err != nil {
		return false, err
	}
	defer written.Close()
	var shared []upgrade.Shared
	for i, part := range []string{w.path(".root.erofs"), w.parts.kernel.Image, w.parts.programs["usr/bin/engine"]} {
		s, err := share(file, written, part)
		if err != nil {
			return false, err
		}
		if s.Size == 0 && i == 0 {
			return false, nil
		}
		if s.Size > 0 {
			shared = append(shared, s)
		}
	}
	slices.SortFunc(shared, func(a, b upgrade.Shared) int { return cmp.Compare(a.InFile, b.InFile) })
	digest, err := manifest.Sum(path)
	if err != nil {
		return false, err
	}
	return true, w.create(recipeSuffix, func(f *os.File) error {
		out := bufio.NewWriterSize(f, 1<<20)
		return errors.Join(upgrade.WriteRecipe(out, file, file.Size(), digest, shared), out.Flush())
	})
}

// share finds a file in two others. Its Size is 0 if it is not in both.
func share(file, medium content.Content, path string) (s upgrade.Shared, err error) {
	part, err := content.Open(path)
	if err != nil {
		return s, err
	}
	defer part.Close()
	if s.InFile, err = find(file, part); err != nil || s.InFile < 0 {
		return upgrade.Shared{}, err
	}
	if s.OnMedium, err = find(medium, part); err != nil || s.OnMedium < 0 {
		return upgrade.Shared{}, err
	}
	s.Size = part.Size()
	return s, nil
}

// find returns where part lies in all; -1 for nowhere.
func find(all, part content.Content) (int64, error) {
	skip, needle, err := telling(part)
	if err != nil {
		return 0, err
	}
	window := make([]byte, 4<<20)
	for at := skip; at+int64(len(needle)) <= all.Size(); {
		n, err := all.ReadAt(window, at)
		if err != nil && !errors.Is(err, io.EOF) {
			return 0, err
		}
		i := bytes.Index(window[:n], needle)
		if i < 0 {
			at += int64(max(n-len(needle)+1, 1))
			continue
		}
		begin := at + int64(i) - skip
		if begin+part.Size() <= all.Size() {
			same, err := equal(io.NewSectionReader(all, begin, part.Size()), content.Reader(part))
			if same || err != nil {
				return begin, err
			}
		}
		at += int64(i) + 1
	}
	return -1, nil
}

// telling returns the piece of the beginning of c that has the most different bytes, which is hardly anywhere else, and where it is.
func telling(c content.Content) (where int64, piece []byte, err error) {
	b := make([]byte, min(256<<10, c.Size()))
	if _, err := c.ReadAt(b, 0); err != nil && !errors.Is(err, io.EOF) {
		return 0, nil, err
	}
	const length = 64
	piece, most := b[:min(length, len(b))], 0
	for at := 0; at+length <= len(b); at += length {
		var seen [256]bool
		n := 0
		for _, c := range b[at:][:length] {
			if !seen[c] {
				seen[c], n = true, n+1
			}
		}
		if n > most {
			where, piece, most = int64(at), b[at:][:length], n
		}
	}
	return where, piece, nil
}

func equal(a, b io.Reader) (bool, error) {
	x, y := make([]byte, 64<<10), make([]byte, 64<<10)
	for {
		n, err := io.ReadFull(a, x)
		m, other := io.ReadFull(b, y)
		if !bytes.Equal(x[:n], y[:m]) {
			return false, nil
		}
		if err != nil || other != nil {
			if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
				err = nil
			}
			return err == nil, err
		}
	}
}
