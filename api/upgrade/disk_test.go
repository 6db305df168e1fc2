package upgrade

import (
	"bytes"
	"strings"
	"testing"

	"github.com/cosi-os/cosi/api/layout/layouttest"
)

const mib = 1 << 20

// wholeDisk is the part of a disk of 8 MiB, and what is to be at its places.
func wholeDisk() (d *Disk, part []byte, want []byte) {
	d = &Disk{Image: 8 * mib, RootAt: 3 * mib, KernelAt: 2*mib + 4096, Pieces: []Piece{
		{At: mib, Zeros: 100}, {At: mib + 200, Size: 5000, Zeros: mib - 6000}, {At: 5 * mib, Size: 7, Zeros: mib + 5}, {At: 7 * mib, Size: 9},
	}}
	want = bytes.Repeat([]byte{0xee}, 8*mib)
	part = bytes.Repeat([]byte("head"), HeadSize/4)
	for i, p := range d.Pieces {
		data := bytes.Repeat([]byte{byte(i + 1)}, int(p.Size))
		part = append(part, data...)
		copy(want[p.At:], data)
		clear(want[p.At+p.Size:][:p.Zeros])
	}
	root, kernel := content()
	copy(want[d.RootAt:], root)
	copy(want[d.KernelAt:], kernel)
	return d, part, want
}

func madeForDisks(t *testing.T) []byte {
	t.Helper()
	root, kernel := content()
	m := manifest()
	var part, b = []byte(nil), bytes.Buffer{}
	m.Disk, part, _ = wholeDisk()
	if err := Write(&b, m, key, strings.NewReader(root), strings.NewReader(kernel), bytes.NewReader(part)); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestADiskIsMade(t *testing.T) {
	_, part, want := wholeDisk()
	u, err := Open(bytes.NewReader(madeForDisks(t)))
	if err != nil {
		t.Fatal(err)
	}
	disk := &layouttest.Memory{Data: bytes.Repeat([]byte{0xee}, 8*mib)}
	var root, kernel bytes.Buffer
	if err := u.Root(&root); err != nil {
		t.Fatal(err)
	}
	if err := u.Kernel(&kernel); err != nil {
		t.Fatal(err)
	}
	head, err := u.Disk(disk)
	if err != nil || !bytes.Equal(head, part[:HeadSize]) {
		t.Fatalf("a head of %d bytes, %v", len(head), err)
	}
	if err := u.Close(); err != nil {
		t.Error(err)
	}
	copy(disk.Data[u.Manifest.Disk.RootAt:], root.Bytes())
	copy(disk.Data[u.Manifest.Disk.KernelAt:], kernel.Bytes())
	if !bytes.Equal(disk.Data, want) {
		t.Error("the disk holds something else")
	}
	if err := u.Manifest.Check(disk, head); err != nil {
		t.Error(err)
	}
	for what, at := range map[string]int64{"root": 3*mib + 5, "kernel": 2*mib + 5000, "a piece": 7*mib + 8, "zeros": mib + 99} {
		disk.Data[at] ^= 1
		if u.Manifest.Check(disk, head) == nil {
			t.Errorf("%s: nobody sees that it has changed", what)
		}
		disk.Data[at] ^= 1
	}
	if u.Manifest.Check(disk, make([]byte, HeadSize)) == nil {
		t.Error("nobody sees that the head has changed")
	}
}

// Who upgrades does not ask for the part of a disk. It is checked all the same.
func TestThePartOfADiskIsLeft(t *testing.T) {
	data := madeForDisks(t)
	if _, _, _, err := read(data); err != nil {
		t.Error(err)
	}
	data[len(data)-2048] ^= 1
	if _, _, _, err := read(data); err == nil || !strings.Contains(err.Error(), "disk: its SHA-256 is ") {
		t.Errorf("changed: %v", err)
	}
	u, err := Open(bytes.NewReader(made(t, nil)))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := u.Disk(&layouttest.Memory{}); err == nil || !strings.Contains(err.Error(), "no part for a whole disk") {
		t.Errorf("without one: %v", err)
	}
}

func TestPlacesThatAreNone(t *testing.T) {
	root, kernel := content()
	for want, change := range map[string]func(*Disk){
		"pieces[0]: 0 and 100 bytes at 4096":    func(d *Disk) { d.Pieces[0].At = 4096 },
		"pieces[1]":                             func(d *Disk) { d.Pieces[1].At = mib + 99 },
		"pieces[3]":                             func(d *Disk) { d.Pieces[3].Zeros = mib },
		"pieces[2]":                             func(d *Disk) { d.Pieces[2].Zeros = -1 },
		"for its pieces":                        func(d *Disk) { d.Pieces[3].Size++ },
		"root_at: 16000 bytes at 8388600 of 83": func(d *Disk) { d.RootAt = 8*mib - 8 },
		"kernel_at":                             func(d *Disk) { d.KernelAt = 0 },
	} {
		m := manifest()
		d, part, _ := wholeDisk()
		change(d)
		m.Disk = d
		if err := Write(&bytes.Buffer{}, m, nil, strings.NewReader(root), strings.NewReader(kernel), bytes.NewReader(part)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v; want %q", err, want)
		}
	}
}
