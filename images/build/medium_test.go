package build

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/cosi-os/cosi/api/upgrade"
)

// The file of an upgrade is put together from what boots the medium, and little else; a root that is compressed there is none to put it together of.
func TestAMediumBringsTheUpgrade(t *testing.T) {
	o := fixture(t)
	o.change(t, "images/dev.yaml", "outputs: [raw, qcow2, iso, pxe]", "outputs: [iso, upgrade]")
	build(t, o)
	medium, err := os.Open(filepath.Join(o.Output, "cosi-dev-amd64.iso"))
	if err != nil {
		t.Fatal(err)
	}
	defer medium.Close()
	if _, err := upgrade.OpenMedium(medium); !errors.Is(err, upgrade.ErrNoMedium) {
		t.Errorf("a compressed root: %v", err)
	}
	o.change(t, "images/dev.yaml", "compression: lz4", "compression: none")
	build(t, o)
	file, err := os.ReadFile(filepath.Join(o.Output, "cosi-dev-amd64.upgrade"))
	if err != nil {
		t.Fatal(err)
	}
	if medium, err = os.Open(filepath.Join(o.Output, "cosi-dev-amd64.iso")); err != nil {
		t.Fatal(err)
	}
	defer medium.Close()
	m, err := upgrade.OpenMedium(medium)
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(m)
	if err != nil || !bytes.Equal(got, file) {
		t.Errorf("%d bytes are put together of %d, %v", len(got), len(file), err)
	}
	sum := sha256.Sum256(file)
	if m.Digest != hex.EncodeToString(sum[:]) || m.Size != int64(len(file)) {
		t.Errorf("digest %s, %d bytes; want %x, %d", m.Digest, m.Size, sum, len(file))
	}
	var shared int64
	for _, p := range m.Pieces {
		if p.At > 0 {
			shared += p.Size
		}
	}
	if shared < int64(len(file))/2 {
		t.Errorf("%d of %d bytes are those that boot the medium", shared, len(file))
	}
}

func TestFind(t *testing.T) {
	part := append(make([]byte, 300), []byte("0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ+-")...)
	part = append(part, bytes.Repeat([]byte("rest"), 5000)...)
	almost := bytes.Clone(part)
	almost[len(almost)-1]++
	in := func(parts ...[]byte) *bytes.Reader { return bytes.NewReader(bytes.Join(parts, nil)) }
	for _, test := range []struct {
		all  *bytes.Reader
		want int64
	}{
		{in(part), 0}, {in([]byte("x"), part, []byte("y")), 1}, {in(almost, part), int64(len(part))}, {in(almost), -1}, {in(nil), -1}, {in(part[:400]), -1},
		{in(make([]byte, 4<<20-330), part), 4<<20 - 330},
	} {
		if got, err := find(test.all, bytes.NewReader(part)); got != test.want || err != nil {
			t.Errorf("find in %d bytes = %d, %v; want %d", test.all.Len(), got, err, test.want)
		}
	}
}
