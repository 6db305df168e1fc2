package upgrade

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cosi-os/cosi/api/layout/bootentry"
	"github.com/cosi-os/cosi/api/layout/fat"
	"github.com/cosi-os/cosi/api/layout/layouttest"
	"github.com/cosi-os/cosi/api/layout/verity"
	"github.com/cosi-os/cosi/api/upgrade"
	"github.com/cosi-os/cosi/images/content"
	images "github.com/cosi-os/cosi/images/fat"
)

const (
	espSize  = 34 << 20
	slotSize = 256 << 10
)

// disk is one in memory: the EFI system partition, and the two slots behind it.
type disk struct {
	*layouttest.Memory
	firmware string
	recorder *layouttest.Recorder // nil: nobody cuts

	mu   sync.Mutex // guards the field below
	open map[string]bool
}

var places = map[string]int64{"esp": 0, "root-a": espSize, "root-b": espSize + slotSize}

// image is a root with its tree, made of text.
type image struct {
	version string
	root    verity.Hash
	slot    []byte
	data    int64
	kernel  string
}

func newImage(t testing.TB, version string) image {
	t.Helper()
	data := bytes.Repeat([]byte("root of "+version+"\n"), 8192)[:10*verity.Block]
	area, root, err := verity.Make(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	return image{version, root, append(data, area...), int64(len(data)), strings.Repeat("kernel of "+version+"\n", 2000)}
}

// grub is how GRUB boots it.
func (i image) grub() string { return "boots " + i.version + "\n" }

// file is the image as an upgrade, and its digest.
func (i image) file(t testing.TB, key ed25519.PrivateKey, change ...func(*upgrade.Manifest)) (data []byte, digest string) {
	t.Helper()
	m := upgrade.Manifest{BIOS: i.grub(), Image: "cosi-test", Version: i.version, Arch: runtime.GOARCH, Root: upgrade.Root{Hash: i.root.String(), Data: i.data}}
	for _, f := range change {
		f(&m)
	}
	var b bytes.Buffer
	var signer crypto.Signer
	if key != nil {
		signer = key
	}
	if err := upgrade.Write(&b, m, signer, bytes.NewReader(i.slot), strings.NewReader(i.kernel), nil); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(b.Bytes())
	return b.Bytes(), hex.EncodeToString(sum[:])
}

// newDisk is one that runs a from its slot A, and has b in its slot B, good, too.
func newDisk(t testing.TB, firmware string, a, b image) *disk {
	t.Helper()
	d := &disk{firmware: firmware, Memory: &layouttest.Memory{Data: make([]byte, espSize+2*slotSize)}, open: map[string]bool{}}
	files := []images.File{{Path: "EFI/BOOT/BOOTX64.EFI", Content: content.String("loader")}}
	if firmware == bios { // a disk that only UEFI boots has none of it
		files = append(files, images.File{Path: "grub/grub.cfg", Content: content.String("constant")},
			images.File{Path: bootentry.EnvFile, Content: bytes.NewReader(bootentry.Env{Good: a.root}.Encode())})
	}
	for i, image := range []image{b, a} {
		e := bootentry.Entry{Number: uint64(i + 1), State: bootentry.Good, Version: image.version, Root: image.root}
		files = append(files, images.File{Path: e.Path(), Content: content.String(e.Text())}, images.File{Path: e.Kernel(), Content: content.String(image.kernel)})
		if firmware == bios {
			files = append(files, images.File{Path: e.GRUBFile(), Content: content.String(image.grub())})
		}
	}
	if err := images.Write(d.Memory, espSize, files, images.Options{Label: "ESP", Time: time.Now()}); err != nil {
		t.Fatal(err)
	}
	copy(d.Data[places["root-a"]:], a.slot)
	copy(d.Data[places["root-b"]:], b.slot)
	return d
}

// machine runs an image from a slot of the disk.
func (d *disk) machine(running image, in string) *machine {
	other := map[string]string{"root-a": "root-b", "root-b": "root-a"}[in]
	return &machine{
		firmware: d.firmware, root: running.root, version: running.version, esp: "esp",
		running: slot{in, in, slotSize}, other: slot{other, other, slotSize},
		open:   func(node string) (partition, error) { return d.part(node) },
		reread: func(node string) (readCloser, error) { return d.part(node) },
	}
}

// part opens a partition, for one at a time.
func (d *disk) part(node string) (*part, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.open[node] {
		return nil, fmt.Errorf("%s: %w", node, unix.EBUSY)
	}
	d.open[node] = true
	return &part{d, node}, nil
}

type part struct {
	d    *disk
	node string
}

func (p *part) WriteAt(b []byte, at int64) (int, error) {
	if p.node != "esp" && at+int64(len(b)) > slotSize {
		return 0, errors.New("behind the partition's end")
	}
	if p.d.recorder != nil {
		p.d.recorder.WriteAt(b, places[p.node]+at)
	}
	return p.d.WriteAt(b, places[p.node]+at)
}

func (p *part) ReadAt(b []byte, at int64) (int, error) { return p.d.ReadAt(b, places[p.node]+at) }

func (p *part) Sync() error {
	if p.d.recorder != nil {
		return p.d.recorder.Sync()
	}
	return nil
}

func (p *part) Close() error {
	p.d.mu.Lock()
	defer p.d.mu.Unlock()
	delete(p.d.open, p.node)
	return nil
}

// cut is the disk as a cut has left it.
func (d *disk) cut(data []byte) *disk {
	return &disk{firmware: d.firmware, Memory: &layouttest.Memory{Data: data}, open: map[string]bool{}}
}

// boots says what is booted next: systemd-boot takes the first entry, GRUB what the environment block says. It fails the test unless kernel and root
// of it are whole.
func (d *disk) boots(t testing.TB, all ...image) bootentry.Entry {
	t.Helper()
	entries, err := d.machine(image{}, "root-a").entries()
	for ; errors.Is(err, unix.EBUSY); entries, err = d.machine(image{}, "root-a").entries() { // the plugin looks at it
		time.Sleep(time.Millisecond)
	}
	if err != nil || len(entries) == 0 {
		t.Fatalf("nothing can be booted: %v, %v", entries, err)
	}
	e := entries[0].Entry
	esp, err := fat.Open(&layouttest.Memory{Data: d.Data[:espSize]})
	if err != nil {
		t.Fatal(err)
	}
	if d.firmware == bios {
		env, err := readEnv(esp)
		if err != nil {
			t.Fatal(err)
		}
		if e = (bootentry.Entry{Root: env.Good, State: bootentry.Good}); env.Left > 0 {
			e = bootentry.Entry{Root: env.Trial, State: bootentry.Trying, Left: env.Left}
		}
		if i, ok := entries.of(e.Root); ok { // that of what GRUB boots may be missing, after a cut
			e.Number, e.Version = i.Number, i.Version
		}
	}
	for _, i := range all {
		if i.root != e.Root {
			continue
		}
		e.Version = i.version
		if kernel, err := esp.Read(e.Kernel(), espSize); err != nil || string(kernel) != i.kernel {
			t.Fatalf("%s is booted, and its kernel is not whole: %v", i.version, err)
		}
		if config, err := esp.Read(e.GRUBFile(), espSize); d.firmware == bios && (err != nil || string(config) != i.grub()) {
			t.Fatalf("%s is booted, and GRUB does not know how: %v", i.version, err)
		}
		for _, name := range slotNames {
			if bytes.HasPrefix(d.Data[places[name]:], i.slot) {
				return e
			}
		}
		t.Fatalf("%s is booted, and no slot holds its root", i.version)
	}
	t.Fatalf("version %s, which is none of ours, is booted", e.Version)
	return e
}

// count is what the boot manager does before it boots what is on trial.
func (d *disk) count(t testing.TB) {
	t.Helper()
	m := d.machine(image{}, "root-a")
	if err := m.withESP(func(system *fat.FS) error {
		if d.firmware == bios {
			env, err := readEnv(system)
			if err == nil && env.Left > 0 {
				env.Left--
				err = setEnv(system, env)
			}
			return err
		}
		all, err := readEntries(system, uefi)
		if err != nil || all[0].State != bootentry.Trying {
			return err
		}
		counted := all[0].Entry
		if counted.Left, counted.Done = counted.Left-1, counted.Done+1; counted.Left == 0 {
			counted.State = bootentry.Bad
		}
		return system.Rename(all[0].path, counted.Name())
	}); err != nil {
		t.Fatal(err)
	}
}

// firmwares are those that every order of writes is tried with.
var firmwares = []string{uefi, bios}
