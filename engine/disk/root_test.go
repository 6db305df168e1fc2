package disk

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cosi-os/cosi/api/layout/gpt"
	"github.com/cosi-os/cosi/api/layout/layouttest"
	"github.com/cosi-os/cosi/api/layout/verity"
)

// memory is a disk in memory.
type memory struct{ *layouttest.Memory }

func (memory) Close() error { return nil }

// slots makes a disk with a root of a text in each slot, none for "", and their kernel arguments, each ended by a line.
func slots(t *testing.T, name string, state bool, texts ...string) *found {
	t.Helper()
	f := &found{device: memory{&layouttest.Memory{Data: make([]byte, 8*mib)}}, path: filepath.Join(t.TempDir(), name), table: &gpt.Table{Partitions: []gpt.Partition{{Name: "esp"}}}}
	for i, text := range texts {
		start := int64(i+1) * mib
		f.table.Partitions = append(f.table.Partitions, gpt.Partition{Name: slotNames[i], Start: start, End: start + mib})
		if text != "" {
			data, area, _ := rootImage(t, text)
			f.WriteAt(append(data, area...), start)
		}
		shown(t, f.node(i+1))
	}
	if state {
		f.table.Partitions = append(f.table.Partitions, gpt.Partition{Type: gpt.State, Name: nameState})
	}
	return f
}

// shown makes a partition's device node.
func shown(t *testing.T, node string) {
	t.Helper()
	if err := os.WriteFile(node, nil, 0o600); err != nil {
		t.Fatal(err)
	}
}

func rootImage(t *testing.T, text string) (data, area []byte, r Root) {
	t.Helper()
	data = make([]byte, 4*verity.Block)
	copy(data, text)
	area, hash, err := verity.Make(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	if r, err = ParseRoot(hash.String(), "hash-offset=16384"); err != nil {
		t.Fatal(err)
	}
	return data, area, r
}

// The hash alone tells the disk and the slot.
func TestTheHashTellsTheSlot(t *testing.T) {
	_, _, one := rootImage(t, "one")
	_, _, two := rootImage(t, "two")
	_, _, none := rootImage(t, "none")
	a, b, c := slots(t, "vda", false, "one", ""), slots(t, "vdb", true, "two", "one"), slots(t, "vdc", false, "two", "two")
	for name, test := range map[string]struct {
		all  []*found
		root Root
		want string // a device node, or an error
	}{
		"slot A":                         {[]*found{a, c}, one, a.node(1)},
		"slot B":                         {[]*found{b}, one, b.node(2)},
		"another disk":                   {[]*found{a, c}, two, c.node(1)},
		"the one with a state":           {[]*found{a, b, c}, one, b.node(2)},
		"the one with a state, too":      {[]*found{c, b}, two, b.node(1)},
		"no disk":                        {nil, one, "no slot holds the root " + one.String() + ": there is no disk"},
		"another root, and an empty one": {[]*found{a}, none, "root-a (" + a.node(1) + "): another hash tree: the hash of its root is " + one.String() + "; root-b (" + a.node(2) + "): no hash tree at 16384"},
		"a disk without slots":           {[]*found{slots(t, "vdd", false)}, one, "vdd has no slots"},
	} {
		slot, err := test.root.find(test.all)
		if err == nil && slot.Node == test.want && slot.Tree.Root == test.root.hash {
			continue
		}
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, %v; want %s", name, slot, err, test.want)
		}
	}
}

// A partition is there when the kernel has read the table, which is later than the disk.
func TestASlotIsThereWhenTheKernelShowsIt(t *testing.T) {
	_, _, one := rootImage(t, "one")
	f := slots(t, "vda", false, "one")
	if err := os.Remove(f.node(1)); err != nil {
		t.Fatal(err)
	}
	if slot, err := one.find([]*found{f}); err == nil || !strings.Contains(err.Error(), f.node(1)+": no such file") {
		t.Errorf("without its node: %v, %v", slot, err)
	}
	shown(t, f.node(1))
	if slot, err := one.find([]*found{f}); err != nil {
		t.Errorf("with it: %v, %v", slot, err)
	}
}

// The state is on the disk that the root is on, unless a copy of that could as well have been taken.
func TestChoose(t *testing.T) {
	_, _, one := rootImage(t, "one")
	plain, second, other := slots(t, "vda", false, "one"), slots(t, "vdb", false, "", "one"), slots(t, "vdc", true, "two")
	withState, also := slots(t, "vdd", true, "one"), slots(t, "vde", true, "", "one")
	for name, c := range map[string]struct {
		all    []*found
		on     string
		want   *found
		why    string
		frozen bool
	}{
		"one":                             {[]*found{plain}, plain.node(1), plain, "", false},
		"the state is another root's":     {[]*found{other, plain}, plain.node(1), plain, "", false},
		"one has a state":                 {[]*found{plain, withState}, withState.node(1), withState, "", false},
		"one that came later has a state": {[]*found{plain, withState}, plain.node(1), nil, ambiguous, true},
		"two have one":                    {[]*found{withState, also}, withState.node(1), nil, ambiguous, true},
		"two copies of one image":         {[]*found{plain, second}, plain.node(1), nil, ambiguous, false},
		"the disk is gone":                {[]*found{other}, plain.node(1), nil, noBootDisk, false},
	} {
		got, err := choose(c.all, one, c.on)
		var why *problem
		if got != c.want || (c.why != "") != errors.As(err, &why) || why != nil && (why.reason != c.why || why.frozen != c.frozen) {
			t.Errorf("%s: %v, %v; want %v, %q, frozen %v", name, got, err, c.want, c.why, c.frozen)
		}
	}
}

func TestArgumentsThatMakeNoSense(t *testing.T) {
	hash := strings.Repeat("a", 64)
	for want, arguments := range map[string][2]string{
		"kernel argument roothash: ":                                          {"abc", "hash-offset=16384"},
		`kernel argument systemd.verity_root_options: "" is not hash-offset=`: {hash, ""},
		`"hash-offset=x" is not`:                                              {hash, "hash-offset=x"},
		`"16384" is not`:                                                      {hash, "16384"},
		`"hash-offset=-4096" is not`:                                          {hash, "hash-offset=-4096"},
		`"hash-offset=4096,superblock=no" is not`:                             {hash, "hash-offset=4096,superblock=no"},
	} {
		if _, err := ParseRoot(arguments[0], arguments[1]); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("ParseRoot(%q) = %v; want %q", arguments, err, want)
		}
	}
}
