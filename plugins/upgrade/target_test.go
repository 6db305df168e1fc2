package upgrade

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cosi-os/cosi/api/layout/bootentry"
	"github.com/cosi-os/cosi/api/layout/fat"
	"github.com/cosi-os/cosi/api/layout/gpt"
	"github.com/cosi-os/cosi/api/layout/layouttest"
	"github.com/cosi-os/cosi/api/upgrade"
	"github.com/cosi-os/cosi/images/content"
	images "github.com/cosi-os/cosi/images/disk"
	imagesfat "github.com/cosi-os/cosi/images/fat"
	"github.com/cosi-os/cosi/images/grub"
	"github.com/cosi-os/cosi/images/grub/grubtest"
	"github.com/cosi-os/cosi/images/iso"
)

const targetSize = 48 * mib

// installable is an image as a file that can be installed, its digest, and the raw disk that the image builder makes of the same.
func installable(t testing.TB, i image, key ...func(*upgrade.Manifest)) (file []byte, digest string, raw []byte) {
	t.Helper()
	dir := t.TempDir()
	grubtest.Write(t, dir)
	loader, err := grub.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	e := bootentry.Entry{Number: 1, State: bootentry.Good, Version: i.version, Root: i.root}
	spec := images.Spec{
		DiskGUID: "01234567-89AB-CDEF-0123-456789ABCDEF",
		PartitionGUIDs: [4]string{"01234567-89AB-CDEF-0123-000000000001", "01234567-89AB-CDEF-0123-000000000002",
			"01234567-89AB-CDEF-0123-000000000003", "01234567-89AB-CDEF-0123-000000000004"},
		Loader: loader, VolumeID: 1, Time: time.Unix(1_760_000_000, 0), ESPSize: 36 * mib, RootSize: mib,
		ESP: []imagesfat.File{
			{Path: "EFI/BOOT/BOOTX64.EFI", Content: content.String("loader")},
			{Path: bootentry.ConfigFile, Content: content.String(bootentry.Config)},
			{Path: e.Path(), Content: content.String(e.Text())},
			{Path: e.Kernel(), Content: content.String(i.kernel)},
			{Path: e.GRUBFile(), Content: content.String(i.grub())},
			{Path: bootentry.EnvFile, Content: bytes.NewReader(bootentry.Env{Good: i.root}.Encode())},
		},
		Roots: [2]content.Content{bytes.NewReader(i.slot)},
	}
	f, err := os.Create(filepath.Join(dir, "raw"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := spec.Write(f); err != nil {
		t.Fatal(err)
	}
	m := upgrade.Manifest{BIOS: i.grub(), Image: "cosi-test", Version: i.version, Arch: runtime.GOARCH, Root: upgrade.Root{Hash: i.root.String(), Data: i.data}}
	d, rest, err := spec.Rest(f, e.Kernel())
	if err != nil {
		t.Fatal(err)
	}
	m.Disk = d
	for _, change := range key {
		change(&m)
	}
	var b bytes.Buffer
	if err := upgrade.Write(&b, m, nil, bytes.NewReader(i.slot), strings.NewReader(i.kernel), content.Reader(rest)); err != nil {
		t.Fatal(err)
	}
	if raw, err = os.ReadFile(f.Name()); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(b.Bytes())
	return b.Bytes(), hex.EncodeToString(sum[:]), raw
}

// one is an image as a file that can be installed. Nobody changes it.
var one struct {
	sync.Once
	image
	file, raw []byte
	digest    string
}

// oneImage is made once for all tests.
func oneImage(t *testing.T) (i image, file []byte, digest string, raw []byte) {
	t.Helper()
	one.Do(func() {
		one.image = newImage(t, "1.0.0")
		one.file, one.digest, one.raw = installable(t, one.image)
	})
	return one.image, one.file, one.digest, one.raw
}

// whole is a disk in memory, of which there may be several.
type whole struct {
	*layouttest.Memory
	recorder *layouttest.Recorder // nil: nobody cuts

	mu   sync.Mutex // guards the field below
	open bool
}

func newWhole(data []byte) *whole { return &whole{Memory: &layouttest.Memory{Data: data}} }

func emptyDisk() *whole { return newWhole(make([]byte, targetSize)) }

func (w *whole) WriteAt(p []byte, at int64) (int, error) {
	if w.recorder != nil {
		w.recorder.WriteAt(p, at)
	}
	return w.Memory.WriteAt(p, at)
}

func (w *whole) Sync() error {
	if w.recorder != nil {
		return w.recorder.Sync()
	}
	return nil
}

func (w *whole) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.open = false
	return nil
}

// onto installs on disks, which are called vda and so on.
func onto(disks ...*whole) *installer {
	all := map[string]*whole{}
	i := &installer{
		firmware: bios, found: func(target, contents) {},
		open: func(node string) (partition, error) {
			w := all[node]
			w.mu.Lock()
			defer w.mu.Unlock()
			if w.open {
				return nil, unix.EBUSY
			}
			w.open = true
			return w, nil
		},
		reread: func(node string) (readCloser, error) {
			return struct {
				io.ReaderAt
				io.Closer
			}{all[node].Memory, io.NopCloser(nil)}, nil
		},
	}
	i.read = i.reread
	for n, w := range disks {
		name := "vd" + string(rune('a'+n))
		all["/dev/"+name] = w
		i.media = append(i.media, "/dev/"+name)
		i.all = append(i.all, target{name: name, node: "/dev/" + name, size: int64(len(w.Data)), sector: 512})
	}
	return i
}

// mediumOf is an installation medium with a file.
func mediumOf(t *testing.T, file []byte, digest string) *whole {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "iso"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var recipe bytes.Buffer
	if err := upgrade.WriteRecipe(&recipe, bytes.NewReader(file), int64(len(file)), digest, nil); err != nil {
		t.Fatal(err)
	}
	spec := iso.Spec{
		Label: "COSI", ESP: []imagesfat.File{{Path: "EFI/BOOT/BOOTX64.EFI", Content: content.String("loader")}}, Time: time.Unix(1_760_000_000, 0),
		Upgrade: func(*os.File) (content.Content, error) { return bytes.NewReader(recipe.Bytes()), nil },
	}
	if err := spec.Write(f); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	return newWhole(data)
}

func TestTheMedium(t *testing.T) {
	one, other := mediumOf(t, []byte("file"), "one"), mediumOf(t, []byte("other"), "other")
	nothing := emptyDisk()
	cut := mediumOf(t, []byte("file"), "one")
	at := bytes.Index(cut.Data, []byte(`{"digest"`))
	cut.Data[at] = 'x'
	for name, test := range map[string]struct {
		media []*whole
		want  string // empty: it is there
	}{
		"one": {[]*whole{nothing, one}, ""}, "twice the same": {[]*whole{one, one}, ""}, "one, and one that is damaged": {[]*whole{cut, one}, ""},
		"none": {[]*whole{nothing}, "no installation medium with UPGRADE.DAT"}, "one that is damaged": {[]*whole{cut, nothing}, "/dev/vda: UPGRADE.DAT: invalid character"},
		"two": {[]*whole{one, nothing, other}, "installation media with different files: /dev/vda, /dev/vdc"},
	} {
		m, err := onto(test.media...).medium()
		if test.want != "" {
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%s: %v; want %q", name, err, test.want)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got, err := io.ReadAll(m); err != nil || string(got) != "file" {
			t.Errorf("%s: %q, %v", name, got, err)
		}
		m.Close()
	}
}

// run chooses a disk and installs.
func (i *installer) run(file []byte, t terms) error {
	on, err := i.choose()
	if err != nil {
		return err
	}
	return errors.Join(i.install(on, bytes.NewReader(file), t, nobody), on.disk.Close())
}

// asMade fails the test unless a disk is what the image builder makes, but for its identifiers, its size and the partitions that are kept, and boots
// the image.
func asMade(t *testing.T, data, raw []byte, i image, kept ...gpt.Partition) *gpt.Table {
	t.Helper()
	table, err := gpt.Read(bytes.NewReader(data), int64(len(data)))
	if err != nil || table.Backup || table.Moved || len(table.Partitions) < 4 || !slices.Equal(table.Partitions[4:], kept) {
		t.Fatalf("%+v, %v", table, err)
	}
	if end := len(raw) - mib; !bytes.Equal(data[mib:end], raw[mib:end]) || !bytes.Equal(data[:446], raw[:446]) || data[510] != 0x55 || data[511] != 0xaa {
		t.Error("the disk is not what the image builder makes")
	}
	esp := table.Partitions[1]
	system, err := fat.Open(&layouttest.Memory{Data: data[esp.Start:esp.End]})
	if err != nil {
		t.Fatal(err)
	}
	all, err := readEntries(system, bios)
	if err != nil || len(all) != 1 || all[0].Root != i.root || all[0].State != bootentry.Good {
		t.Fatalf("entries: %v, %v", all, err)
	}
	if kernel, err := system.Read(all[0].Kernel(), espSize); err != nil || string(kernel) != i.kernel {
		t.Fatalf("the kernel: %v", err)
	}
	if !bytes.HasPrefix(data[table.Partitions[2].Start:], i.slot) {
		t.Error("slot A holds something else")
	}
	return table
}

func TestAnInstallationIsWhatTheImageBuilderMakes(t *testing.T) {
	i, file, digest, raw := oneImage(t)
	var tables []*gpt.Table
	for range 2 {
		d := emptyDisk()
		if err := onto(d).run(file, terms{policy: anyOne, digest: digest}); err != nil {
			t.Fatal(err)
		}
		tables = append(tables, asMade(t, d.Data, raw, i))
		if d.open {
			t.Error("the disk is still open")
		}
	}
	if tables[0].DiskGUID == tables[1].DiskGUID || tables[0].Partitions[1].GUID == tables[1].Partitions[1].GUID {
		t.Error("two disks have the same identifiers")
	}
}

// A disk that held something, everywhere, is one that holds nothing but the image; sgdisk and fsck.vfat find nothing to say.
func TestJudgesAreContent(t *testing.T) {
	_, file, digest, _ := oneImage(t)
	path := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(path, bytes.Repeat([]byte{0xa5}, targetSize), 0o600); err != nil {
		t.Fatal(err)
	}
	by := onto(emptyDisk())
	by.open = func(string) (partition, error) { return os.OpenFile(path, os.O_RDWR, 0) }
	by.reread = func(string) (readCloser, error) { return os.Open(path) }
	var holds contents
	by.found = func(_ target, c contents) { holds = c }
	err := by.run(file, terms{policy: anyOne, digest: digest})
	if !errors.Is(err, errRefused) || !strings.Contains(err.Error(), "/dev/vda (48.0 MiB) holds data; to lose that, quote fingerprint: "+holds.fingerprint) || holds.fingerprint == "" {
		t.Fatalf("install = %v", err)
	}
	by.fingerprint = strings.Repeat("0", 32)
	if err := by.run(file, terms{policy: anyOne, digest: digest}); !errors.Is(err, errRefused) || !strings.Contains(err.Error(), "its fingerprint is "+holds.fingerprint+", and not the one that is quoted") {
		t.Fatalf("install = %v", err)
	}
	by.fingerprint = holds.fingerprint
	if err := by.run(file, terms{policy: anyOne, digest: digest}); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("/sbin/sgdisk", "-v", path).CombinedOutput(); err != nil || !strings.Contains(string(out), "No problems found") { // hack/setup installs it
		t.Errorf("sgdisk: %v\n%s", err, out)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	esp := filepath.Join(t.TempDir(), "esp")
	if err := os.WriteFile(esp, data[2*mib:38*mib], 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("/sbin/fsck.vfat", "-n", esp).CombinedOutput(); err != nil || strings.Count(strings.TrimSpace(string(out)), "\n") != 1 {
		t.Errorf("fsck.vfat: %v\n%s", err, out)
	}
	if empty(data[38*mib-1:38*mib]) || !empty(data[39*mib:40*mib]) {
		t.Error("slot B is not empty, or a byte that nobody uses was written")
	}
}

// User data is where a node looks for it on its first boot.
func TestUserDataIsPlaced(t *testing.T) {
	_, file, digest, _ := oneImage(t)
	d := emptyDisk()
	by := onto(d)
	by.userData = "metadata: {}\n"
	if err := by.run(file, terms{policy: anyOne, digest: digest}); err != nil {
		t.Fatal(err)
	}
	hasUserData(t, d.Data, by.userData)
}

// hasUserData fails unless the EFI system partition of a disk has the user data.
func hasUserData(t *testing.T, data []byte, want string) {
	t.Helper()
	system, err := fat.Open(&layouttest.Memory{Data: data[2*mib : 38*mib]})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := system.Read("user-data.yaml", 1000); err != nil || string(got) != want {
		t.Errorf("user data: %q, %v", got, err)
	}
}

// Wherever power is lost, the disk is as it was, or begun, or whole; nothing boots it before it is, and what is not whole is taken again.
func TestEveryCutOfAnInstallation(t *testing.T) {
	i, file, digest, raw := oneImage(t)
	before := make([]byte, targetSize)
	other := &gpt.Table{Partitions: []gpt.Partition{{Type: gpt.State, Name: "other", Start: mib, End: 2 * mib}}}
	if err := other.Write(&layouttest.Memory{Data: before}, targetSize); err != nil {
		t.Fatal(err)
	}
	holds, err := inspect(bytes.NewReader(before), targetSize)
	if err != nil {
		t.Fatal(err)
	}
	d := newWhole(bytes.Clone(before))
	d.recorder = &layouttest.Recorder{}
	by := onto(d)
	by.fingerprint = holds.fingerprint
	if err := by.run(file, terms{policy: anyOne, digest: digest}); err != nil {
		t.Fatal(err)
	}
	seed := rand.Uint64()
	states, cuts := map[string]int{}, 0
	for data := range d.recorder.Cuts(before, rand.New(rand.NewPCG(seed, 0)), tries) {
		cuts++
		cut := newWhole(data)
		is, err := inspect(cut, targetSize)
		if err != nil {
			t.Fatal(err)
		}
		by := onto(cut)
		switch {
		case bytes.Equal(data, before):
			states["as it was"]++
			by.fingerprint = holds.fingerprint
		case data[510] == 0x55:
			states["whole"]++
			asMade(t, data, raw, i)
			if err := by.run(file, terms{policy: anyOne, digest: digest}); !errors.Is(err, errRefused) || !strings.Contains(err.Error(), "holds COSI 1.0.0, a partition table") {
				t.Fatalf("seed %d, cut %d: once more: %v", seed, cuts, err)
			}
			continue
		default:
			states["begun"]++
			if len(is.found) != 0 {
				t.Fatalf("seed %d, cut %d: it holds %s", seed, cuts, is)
			}
		}
		if err := by.run(file, terms{policy: anyOne, digest: digest}); err != nil {
			t.Fatalf("seed %d, cut %d: again: %v", seed, cuts, err)
		}
		asMade(t, cut.Data, raw, i)
	}
	if states["begun"] < 4*tries || states["whole"] == 0 {
		t.Errorf("%d cuts: %v", cuts, states)
	}
}

func TestOneDiskMustMatch(t *testing.T) {
	_, file, digest, _ := oneImage(t)
	medium := mediumOf(t, file, digest)
	open := func(w *whole) *whole { w.open = true; return w }
	large := emptyDisk()
	for name, test := range map[string]struct {
		by      *installer
		refused bool
		want    string // empty: it is installed
	}{
		"one":                   {onto(emptyDisk()), false, ""},
		"two":                   {onto(emptyDisk(), emptyDisk()), true, "2 disks match, and exactly one must: /dev/vda (48.0 MiB), /dev/vdb (48.0 MiB)"},
		"one and the medium":    {onto(medium, emptyDisk()), false, ""},
		"the medium":            {onto(medium), false, "no disk matches but the medium"},
		"one in use":            {onto(open(emptyDisk())), false, "/dev/vda: device or resource busy"},
		"one and one in use":    {onto(open(emptyDisk()), emptyDisk()), true, "2 disks match"},
		"one that is too small": {onto(newWhole(make([]byte, 8*mib))), true, "it takes a disk of 41.0 MiB, and /dev/vda (8.0 MiB) has less"},
		"other sectors": {func() *installer {
			by := onto(large)
			by.all[0].sector = 4096
			return by
		}(), true, "/dev/vda (48.0 MiB) has sectors of 4096 bytes; want 512"},
	} {
		err := test.by.run(file, terms{policy: anyOne, digest: digest})
		if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) || errors.Is(err, errRefused) != test.refused {
			t.Errorf("%s: %v; want %q", name, err, test.want)
		}
	}
	if !empty(large.Data) {
		t.Error("what is refused was written to")
	}
}

func TestWhatIsNotInstalled(t *testing.T) {
	i, file, digest, _ := oneImage(t)
	forUpgrades, upgradesDigest := i.file(t, nil)
	noBIOS, noBIOSDigest, _ := installable(t, i, func(m *upgrade.Manifest) { m.BIOS = "" })
	failed := errors.New("the network is down")
	for name, test := range map[string]struct {
		source io.Reader
		terms
		want      error
		says      string
		untouched bool
	}{
		"not signed":           {bytes.NewReader(file), terms{policy: ours, digest: digest}, errRefused, "it is not signed", true},
		"for upgrades":         {bytes.NewReader(forUpgrades), terms{policy: anyOne, digest: upgradesDigest}, errRefused, "it is for upgrades alone", true},
		"by UEFI alone":        {bytes.NewReader(noBIOS), terms{policy: anyOne, digest: noBIOSDigest}, errRefused, "no BIOS boots it", true},
		"another version":      {bytes.NewReader(file), terms{policy: anyOne, digest: digest, version: "2"}, errRefused, "it is version 1.0.0, and 2 is asked for", true},
		"another file":         {bytes.NewReader(file), terms{policy: anyOne, digest: strings.Repeat("0", 64)}, errBroken, "the SHA-256 of its file is ", false},
		"half of it":           {bytes.NewReader(file[:len(file)/2]), terms{policy: anyOne, digest: digest}, errBroken, "unexpected EOF", false},
		"a source that failed": {io.MultiReader(bytes.NewReader(file[:len(file)/2]), iotest.ErrReader(failed)), terms{policy: anyOne, digest: digest}, failed, "", false},
	} {
		d := emptyDisk()
		by := onto(d)
		on, err := by.choose()
		if err != nil {
			t.Fatal(err)
		}
		err = by.install(on, test.source, test.terms, nobody)
		on.disk.Close()
		if !errors.Is(err, test.want) || !strings.Contains(err.Error(), test.says) {
			t.Errorf("%s: %v; want %v, %q", name, err, test.want, test.says)
		}
		if empty(d.Data) != test.untouched || d.Data[510] == 0x55 {
			t.Errorf("%s: written to: %v, to be booted: %v", name, !empty(d.Data), d.Data[510] == 0x55)
		}
		if test.untouched {
			continue
		}
		if err := by.run(file, terms{policy: anyOne, digest: digest}); err != nil {
			t.Errorf("%s: then what is right: %v", name, err)
		}
	}
}

// A disk that does not keep what was written is seen when it is read back, be it the table.
func TestABadDiskIsSeen(t *testing.T) {
	_, file, digest, _ := oneImage(t)
	for _, test := range []struct {
		reads int // before it forgets
		at    int64
		data  string
		want  string
	}{{1, 38*mib + 100, "", "read back: root: "}, {2, 600, "", "read back: another partition table"}, {2, 2 * mib, "x", "read back: FAT: "}} {
		d := emptyDisk()
		by := onto(d)
		by.userData = test.data
		reread := by.reread
		by.reread = func(node string) (readCloser, error) {
			if test.reads--; test.reads == 0 {
				clear(d.Data[test.at:][:512])
			}
			return reread(node)
		}
		if err := by.run(file, terms{policy: anyOne, digest: digest}); !errors.Is(err, errBroken) || !strings.Contains(err.Error(), test.want) {
			t.Errorf("install = %v; want %q", err, test.want)
		}
	}
}

func TestWhatADiskHolds(t *testing.T) {
	table := func(d []byte) {
		p := []gpt.Partition{{Type: gpt.State, Name: "one", Start: 5 * mib, End: 6 * mib}, {}, {Type: gpt.State, Name: "three", Start: 7 * mib, End: 8 * mib}}
		if err := (&gpt.Table{Partitions: p}).Write(&layouttest.Memory{Data: d}, targetSize); err != nil {
			t.Fatal(err)
		}
	}
	for want, change := range map[string]func(d []byte){
		"nothing":             func([]byte) {},
		"data":                func(d []byte) { d[len(d)-1] = 1 },
		"an ext file system":  func(d []byte) { copy(d[1080:], "\x53\xef") },
		"a LUKS volume":       func(d []byte) { copy(d, "LUKS\xba\xbe") },
		"a btrfs file system": func(d []byte) { copy(d[65600:], "_BHRfS_M") },
		`a partition table with 2 partitions ("one", "three")`: table,
		"a boot sector with 1 partitions":                      func(d []byte) { d[510], d[511], d[450], d[455] = 0x55, 0xaa, 0x83, 0x08 },
	} {
		d := make([]byte, targetSize)
		change(d)
		is, err := inspect(bytes.NewReader(d), targetSize)
		if err != nil || is.String() != want {
			t.Errorf("%q, %v; want %q", is, err, want)
		}
	}
	d := make([]byte, targetSize)
	table(d)
	seen := map[string]int{}
	for _, at := range []int{-1, 300, mib - 1, targetSize - 1, 5*mib + 1100, 7*mib + 70000, targetSize / samples * 100 / 4096 * 4096} {
		changed := bytes.Clone(d)
		if at >= 0 {
			changed[at]++
		}
		is, err := inspect(bytes.NewReader(changed), targetSize)
		if other, twice := seen[is.fingerprint]; twice || err != nil {
			t.Errorf("byte %d and byte %d changed: the same fingerprint, %v", at, other, err)
		}
		seen[is.fingerprint] = at
	}
	again, _ := inspect(bytes.NewReader(d), targetSize)
	if _, there := seen[again.fingerprint]; !there {
		t.Error("looked at twice, it has another fingerprint")
	}
	if _, err := inspect(bytes.NewReader(d[:mib]), mib); err == nil {
		t.Error("a disk of a MiB is looked at")
	}
}
