package luks2

import (
	"bytes"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cosi-os/cosi/api/layout/layouttest"
)

const (
	testUUID = "3f8a4a08-7c21-4b0c-9f53-1c6a0f0c2d11"
	size     = DataOffset + 1<<20
)

var passphrase = []byte("a passphrase that is random in earnest")

// made makes a volume with one keyslot.
func made(t testing.TB, d Device) (*Header, []byte) {
	t.Helper()
	h, key, err := New(testUUID, "STATE")
	if err != nil {
		t.Fatal(err)
	}
	if slot, err := h.Add(d, key, passphrase); err != nil || slot != "0" {
		t.Fatalf("Add = %q, %v", slot, err)
	}
	if err := h.Write(d); err != nil {
		t.Fatal(err)
	}
	return h, key
}

func blank() *layouttest.Memory { return &layouttest.Memory{Data: make([]byte, size)} }

func TestWhatWasWrittenIsOpened(t *testing.T) {
	d := blank()
	_, key := made(t, d)
	h, err := Read(d)
	if err != nil {
		t.Fatal(err)
	}
	got, slot, err := h.Unlock(d, passphrase)
	if err != nil || slot != "0" || !bytes.Equal(got, key) || h.UUID() != testUUID {
		t.Errorf("Unlock = %x, %q, %v", got, slot, err)
	}
	if _, _, err := h.Unlock(d, []byte("another")); !errors.Is(err, ErrPassphrase) {
		t.Errorf("another passphrase: %v", err)
	}
	if _, err := h.Add(d, make([]byte, KeySize), passphrase); err == nil {
		t.Error("a key of something else was taken")
	}
	sectors, arguments, err := h.Target("/dev/vda5", size, key)
	if want := " 0 /dev/vda5 8192 2 allow_discards sector_size:4096"; err != nil || sectors != 2048 || !strings.HasSuffix(arguments, want) {
		t.Errorf("Target = %d, %q, %v; want 2048, …%q", sectors, arguments, err, want)
	}
	if _, _, err := h.Target("/dev/vda5", DataOffset, key); err == nil {
		t.Error("a volume without room for data is shown")
	}
}

// A keyslot that is replaced leaves nothing behind that opens the volume, and another in its place.
func TestAKeyslotIsReplaced(t *testing.T) {
	d := blank()
	h, key := made(t, d)
	if err := h.AddToken(map[string]any{"type": "test", "keyslots": []string{"0"}, "more": 1}); err != nil || len(h.Tokens("test")) != 1 {
		t.Fatalf("AddToken: %v, %s", err, h.Tokens("test"))
	}
	if err := h.AddToken(map[string]any{"type": "test", "keyslots": []string{"7"}}); err == nil {
		t.Error("a token of no keyslot was taken")
	}
	before := bytes.Clone(d.Data)
	slot, err := h.Add(d, key, []byte("new"))
	if err != nil || slot != "1" {
		t.Fatalf("Add = %q, %v", slot, err)
	}
	wipe := h.Remove("0")
	if err := errors.Join(h.Write(d), wipe(d)); err != nil {
		t.Fatal(err)
	}
	after, err := Read(d)
	if err != nil {
		t.Fatal(err)
	}
	if got, slot, err := after.Unlock(d, []byte("new")); err != nil || slot != "1" || !bytes.Equal(got, key) {
		t.Errorf("Unlock = %x, %q, %v", got, slot, err)
	}
	if len(after.Tokens("test")) != 0 {
		t.Error("the token of the keyslot is still there")
	}
	// With the old header in the place of the new one, too, the passphrase opens nothing.
	copy(d.Data, before[:2*headerSize])
	if old, err := Read(d); err != nil {
		t.Error(err)
	} else if _, _, err := old.Unlock(d, passphrase); !errors.Is(err, ErrPassphrase) {
		t.Errorf("the old keyslot: %v", err)
	}
}

// Whatever part of a change was written: the volume can be opened with the old passphrase or with the new one, and with the one that is neither, always.
func TestACutOffChangeHasHappenedOrNot(t *testing.T) {
	d := blank()
	h, key := made(t, d)
	if _, err := h.Add(d, key, []byte("recovery")); err != nil {
		t.Fatal(err)
	}
	if err := h.Write(d); err != nil {
		t.Fatal(err)
	}
	before := bytes.Clone(d.Data)
	recorder := &layouttest.Recorder{}
	both := tee{d, recorder}
	if _, err := h.Add(both, key, []byte("new")); err != nil {
		t.Fatal(err)
	}
	wipe := h.Remove("0")
	if err := errors.Join(h.Write(both), wipe(both)); err != nil {
		t.Fatal(err)
	}
	seed := rand.Uint64()
	happened, not := 0, 0
	for data := range recorder.Cuts(before, rand.New(rand.NewPCG(seed, 0)), 5) {
		cut := &layouttest.Memory{Data: data}
		h, err := Read(cut)
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		if _, _, err := h.Unlock(cut, []byte("recovery")); err != nil {
			t.Fatalf("seed %d: recovery: %v", seed, err)
		}
		_, _, oldErr := h.Unlock(cut, passphrase)
		_, _, newErr := h.Unlock(cut, []byte("new"))
		switch {
		case newErr == nil && oldErr != nil:
			happened++
		case oldErr == nil && newErr != nil:
			not++
		default:
			t.Fatalf("seed %d: by the old one: %v, by the new one: %v", seed, oldErr, newErr)
		}
	}
	if happened == 0 || not == 0 {
		t.Errorf("%d changes had happened, %d not: want some of each", happened, not)
	}
}

// tee writes to a disk and to what remembers it.
type tee struct {
	*layouttest.Memory
	recorder *layouttest.Recorder
}

func (d tee) WriteAt(p []byte, off int64) (int, error) {
	d.recorder.WriteAt(p, off)
	return d.Memory.WriteAt(p, off)
}

func (d tee) Sync() error { return d.recorder.Sync() }

func TestWhatIsNoHeader(t *testing.T) {
	for name, spoil := range map[string]func(*layouttest.Memory){
		"nothing":      func(d *layouttest.Memory) { clear(d.Data) },
		"two bad sums": func(d *layouttest.Memory) { d.Data[5000] ^= 1; d.Data[headerSize+5000] ^= 1 },
		"two segments": rewritten(func(h *Header) { h.meta.Segments["1"] = h.meta.Segments["0"] }),
		"another type": rewritten(func(h *Header) { s := h.meta.Segments["0"]; s.Encryption = "null"; h.meta.Segments["0"] = s }),
		"odd sectors":  rewritten(func(h *Header) { s := h.meta.Segments["0"]; s.SectorSize = 3; h.meta.Segments["0"] = s }),
		"no digest":    rewritten(func(h *Header) { clear(h.meta.Digests) }),
		"requirements": rewritten(func(h *Header) {
			h.meta.Config = json.RawMessage(`{"json_size":"12288","keyslots_size":"0","requirements":{"mandatory":["x"]}}`)
		}),
		"areas in data": rewritten(func(h *Header) { h.meta.Config = json.RawMessage(`{"json_size":"12288","keyslots_size":"8388608"}`) }),
	} {
		d := blank()
		made(t, d)
		spoil(d)
		if _, err := Read(d); err == nil {
			t.Errorf("%s: is read", name)
		}
	}
	d := blank()
	made(t, d)
	d.Data[100] ^= 1
	if _, err := Read(d); err != nil {
		t.Errorf("with one copy that is whole: %v", err)
	}
}

func rewritten(change func(*Header)) func(*layouttest.Memory) {
	return func(d *layouttest.Memory) {
		h, err := Read(d)
		if err != nil {
			panic(err)
		}
		change(h)
		if err := h.Write(d); err != nil {
			panic(err)
		}
	}
}

// cryptsetup is the judge: it opens what is made here, and what it makes is opened here.
func TestCryptsetup(t *testing.T) {
	program := tool(t, "cryptsetup")
	dir := t.TempDir()
	image, secret, volumeKey := filepath.Join(dir, "image"), filepath.Join(dir, "passphrase"), filepath.Join(dir, "key")
	d := blank()
	h, key := made(t, d)
	if _, err := h.Add(d, key, []byte("second")); err != nil {
		t.Fatal(err)
	}
	if err := h.AddToken(map[string]any{"type": "test", "keyslots": []string{"1"}}); err != nil {
		t.Fatal(err)
	}
	if err := h.Write(d); err != nil {
		t.Fatal(err)
	}
	write(t, image, d.Data)
	for _, text := range []string{string(passphrase), "second"} {
		write(t, secret, []byte(text))
		run(t, program, "open", "--test-passphrase", "--key-file", secret, image)
	}
	if dump := run(t, program, "luksDump", image); !strings.Contains(dump, testUUID) || !strings.Contains(dump, "sector: 4096") {
		t.Errorf("luksDump:\n%s", dump)
	}
	run(t, program, "luksDump", "--batch-mode", "--dump-volume-key", "--volume-key-file", volumeKey, "--key-file", secret, image)
	if got, err := os.ReadFile(volumeKey); err != nil || !bytes.Equal(got, key) {
		t.Errorf("cryptsetup finds the key %x, %v; want %x", got, err, key)
	}

	if err := os.Truncate(image, 0); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, 20<<20); err != nil {
		t.Fatal(err)
	}
	run(t, program, "luksFormat", "--batch-mode", "--type", "luks2", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000", "--hash", "sha512", "--key-size", "512", "--key-file", secret, image)
	f, err := os.OpenFile(image, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	theirs, err := Read(f)
	if err != nil {
		t.Fatal(err)
	}
	key, _, err = theirs.Unlock(f, []byte("second"))
	if err != nil {
		t.Fatal(err)
	}
	// One more keyslot does not disturb the others.
	if _, err := theirs.Add(f, key, passphrase); err != nil {
		t.Fatal(err)
	}
	if err := theirs.Write(f); err != nil {
		t.Fatal(err)
	}
	run(t, program, "open", "--test-passphrase", "--key-file", secret, image)
	write(t, secret, passphrase)
	run(t, program, "open", "--test-passphrase", "--key-file", secret, image)
}

func write(t *testing.T, file string, data []byte) {
	t.Helper()
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func run(t *testing.T, program string, args ...string) string {
	t.Helper()
	out, err := exec.Command(program, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", program, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// tool finds a program, or skips the test where it is not installed.
func tool(t *testing.T, name string) string {
	t.Helper()
	for _, dir := range []string{"/sbin", "/usr/sbin", "/usr/bin"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
			return filepath.Join(dir, name)
		}
	}
	if os.Getenv("CI") != "" {
		t.Fatalf("%s is not installed", name)
	}
	t.Skipf("%s is not installed (hack/setup installs it)", name)
	return ""
}

// A header may say anything: nothing outside of the place for keyslots is read or written for it.
func FuzzHeader(f *testing.F) {
	d := blank()
	h, _ := made(f, d)
	meta, err := json.Marshal(h.meta)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(meta)
	f.Add([]byte(`{"keyslots":{"0":{"area":{"offset":"9223372036854775807","size":"1"}}}}`))
	f.Fuzz(func(t *testing.T, meta []byte) {
		d := &layouttest.Memory{Data: make([]byte, areasAt)}
		h := &Header{fixed: fixed{Version: 2, Size: headerSize}}
		copy(h.fixed.Algorithm[:], "sha256")
		if json.Unmarshal(meta, &h.meta) != nil || h.Write(d) != nil {
			return
		}
		h, err := Read(d)
		if err != nil {
			return
		}
		for id := range h.meta.Keyslots {
			if k, err := h.keyslot(id); err == nil && (k.Area.Offset < areasAt || k.Area.Offset+areaSize > h.meta.Segments["0"].Offset) {
				t.Errorf("keyslot %s is read at %d", id, k.Area.Offset)
			}
		}
		if at, err := h.room(); err == nil && (at < areasAt || number(at)+areaSize > h.meta.Segments["0"].Offset) {
			t.Errorf("a keyslot is written at %d", at)
		}
		h.Target("/dev/x", size, make([]byte, KeySize))
		h.Tokens("test")
		h.Remove("0")
	})
}
