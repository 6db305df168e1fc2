package slot

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cosi-os/cosi/api/layout/gpt"
	"github.com/cosi-os/cosi/api/layout/verity"
	"github.com/cosi-os/cosi/engine/disk"
)

const guid = "01234567-89AB-CDEF-0123-456789ABCDEF"

// partition writes an image of text with its tree into a file.
func partition(t *testing.T, text string) (file, hash string) {
	t.Helper()
	data := make([]byte, 4*verity.Block)
	copy(data, text)
	area, root, err := verity.Make(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	file = filepath.Join(t.TempDir(), "partition")
	if err := os.WriteFile(file, append(data, area...), 0o600); err != nil {
		t.Fatal(err)
	}
	return file, root.String()
}

func TestTheHashTellsTheSlot(t *testing.T) {
	a, hashA := partition(t, "one")
	b, hashB := partition(t, "two")
	empty := filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(empty, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	slots := []disk.Slot{{Name: "root-a", Node: a}, {Name: "root-b", Node: b}}
	for want, hash := range map[string]string{"root-a": hashA, "root-b": hashB} {
		r, err := Parse(hash, "hash-offset=16384", guid)
		if err != nil {
			t.Fatal(err)
		}
		if slot, tree, err := r.choose(slots); err != nil || slot.Name != want || tree.Root.String() != hash {
			t.Errorf("for %s: %v, %v; want %s", hash, slot, err, want)
		}
	}
	r, err := Parse(strings.Repeat("0", 64), "hash-offset=16384", guid)
	if err != nil {
		t.Fatal(err)
	}
	_, _, err = r.choose([]disk.Slot{{Name: "root-a", Node: a}, {Name: "root-b", Node: empty}})
	for _, want := range []string{"no slot holds the root 00", "root-a (" + a + "): another hash tree: the hash of its root is " + hashA, "root-b (" + empty + "): no hash tree at 16384"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("choose = %v; want %q", err, want)
		}
	}
	if _, _, err := r.choose(nil); err == nil || !strings.Contains(err.Error(), "the disk has no slots") {
		t.Errorf("choose without slots = %v", err)
	}
}

func TestArgumentsThatMakeNoSense(t *testing.T) {
	hash := strings.Repeat("a", 64)
	for want, arguments := range map[string][3]string{
		"kernel argument roothash: ":                                          {"abc", "hash-offset=16384", guid},
		`kernel argument systemd.verity_root_options: "" is not hash-offset=`: {hash, "", guid},
		`"hash-offset=x" is not`:                                              {hash, "hash-offset=x", guid},
		`"16384" is not`:                                                      {hash, "16384", guid},
		`"hash-offset=-4096" is not`:                                          {hash, "hash-offset=-4096", guid},
		`"hash-offset=4096,superblock=no" is not`:                             {hash, "hash-offset=4096,superblock=no", guid},
		"kernel argument cosi.disk: ":                                         {hash, "hash-offset=16384", ""},
	} {
		if _, err := Parse(arguments[0], arguments[1], arguments[2]); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Parse(%q) = %v; want %q", arguments, err, want)
		}
	}
}

// The drivers are looked for while the disk is not there, and no longer.
func TestADiskIsWaitedFor(t *testing.T) {
	for name, test := range map[string]struct {
		comes    int // after how many searches
		fails    error
		patience time.Duration
		want     string
		said     int
	}{
		"it is there":    {0, nil, 0, "", 0},
		"it comes":       {3, nil, time.Minute, "", 0},
		"it comes late":  {55, nil, time.Minute, "", 1},
		"it never comes": {1 << 30, nil, 50 * time.Millisecond, "no disk has the identifier that the image was booted with, for 50ms; no driver", 0},
		"it is broken":   {0, unix.EIO, time.Minute, "input/output error", 0},
	} {
		searches, said := 0, 0
		w := Waiter{
			Search:   func() []error { searches++; return []error{errors.New("no driver")} },
			Patience: test.patience,
			Log:      func(string) { said++ },
			slots: func(gpt.GUID) ([]disk.Slot, error) {
				if searches < test.comes {
					return nil, disk.ErrNoDisk
				}
				if searches == test.comes && test.comes > 0 {
					return nil, disk.ErrNoSlot // its partitions come last
				}
				return []disk.Slot{{Name: "root-a"}}, test.fails
			},
		}
		slots, err := w.wait(gpt.GUID{})
		if got := ""; err != nil {
			if got = err.Error(); got != test.want {
				t.Errorf("%s: %q; want %q", name, got, test.want)
			}
			continue
		}
		if test.want != "" || len(slots) != 1 || searches != test.comes+min(test.comes, 1) || said != test.said {
			t.Errorf("%s: %v after %d searches, said %d times; want %q after %d, said %d times", name, slots, searches, said, test.want, test.comes, test.said)
		}
	}
}

// The kernel reads a target as include/uapi/linux/dm-ioctl.h says.
func TestTarget(t *testing.T) {
	b := target("verity", 32, "1 a b")
	if len(b) != unix.SizeofDmTargetSpec+8 || binary.NativeEndian.Uint64(b[8:]) != 32 || binary.NativeEndian.Uint32(b[20:]) != uint32(len(b)) ||
		string(b[24:31]) != "verity\x00" || string(b[40:]) != "1 a b\x00\x00\x00" {
		t.Errorf("target = %q", b)
	}
	if b := target("verity", 32, "12345678"); b[len(b)-1] != 0 || len(b)%8 != 0 {
		t.Errorf("target = %q; want a zero at its end, in whole words", b)
	}
}
