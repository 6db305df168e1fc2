package verity

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// image returns blocks of data, no two alike, and what Make puts behind them.
func image(t testing.TB, blocks int) ([]byte, Hash) {
	t.Helper()
	data := make([]byte, blocks*Block)
	for n := range blocks {
		binary.LittleEndian.PutUint64(data[n*Block:], uint64(n)*0x9e3779b97f4a7c15)
	}
	area, root, err := Make(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	return append(data, area...), root
}

// The trees of these have one level, one full, two, and three.
var sizes = []int{2, fanout, fanout + 1, 3 * fanout, fanout*fanout + 1}

func TestVeritysetupIsContent(t *testing.T) {
	for _, blocks := range sizes {
		disk, root := image(t, blocks)
		at := int64(blocks * Block)
		file := filepath.Join(t.TempDir(), "disk")
		if err := os.WriteFile(file, disk, 0o600); err != nil {
			t.Fatal(err)
		}
		verify := func() ([]byte, error) {
			// hack/setup installs it
			return exec.Command("/usr/sbin/veritysetup", "verify", fmt.Sprintf("--hash-offset=%d", at), file, file, root.String()).CombinedOutput()
		}
		if out, err := verify(); err != nil {
			t.Errorf("%d blocks: veritysetup: %v\n%s", blocks, err, out)
		}
		out, err := exec.Command("/usr/sbin/veritysetup", "dump", fmt.Sprintf("--hash-offset=%d", at), file).CombinedOutput()
		if !regexp.MustCompile(fmt.Sprintf(`(?s)UUID:\s+[0-9a-f-]{36}.*Hash type:\s+1.*Data blocks:\s+%d\n.*sha256`, blocks)).Match(out) || err != nil {
			t.Errorf("%d blocks: veritysetup dump: %v\n%s", blocks, err, out)
		}
		disk[at-1] ^= 1
		if err := os.WriteFile(file, disk, 0o600); err != nil {
			t.Fatal(err)
		}
		if out, err := verify(); err == nil {
			t.Errorf("%d blocks: a flipped bit is not seen:\n%s", blocks, out)
		}
	}
}

// What is found is just as long as the tree that another program makes of the same data with the same salt.
func TestVeritysetupMakesTheSameTree(t *testing.T) {
	for _, blocks := range sizes {
		disk, root := image(t, blocks)
		at := int64(blocks * Block)
		tree, err := Find(bytes.NewReader(disk), at, root)
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(t.TempDir(), "disk")
		if err := os.WriteFile(file, disk[:at], 0o600); err != nil {
			t.Fatal(err)
		}
		uuid := fmt.Sprintf("%x-%x-%x-%x-%x", tree.UUID[:4], tree.UUID[4:6], tree.UUID[6:8], tree.UUID[8:10], tree.UUID[10:])
		out, err := exec.Command("/usr/sbin/veritysetup", "format", fmt.Sprintf("--hash-offset=%d", at), fmt.Sprintf("--data-blocks=%d", blocks),
			fmt.Sprintf("--salt=%x", tree.salt), "--uuid="+uuid, file, file).CombinedOutput()
		if err != nil || !strings.Contains(string(out), root.String()) {
			t.Fatalf("%d blocks: veritysetup format: %v\n%s\nwant the root hash %s", blocks, err, out, root)
		}
		if theirs, err := os.ReadFile(file); err != nil || !bytes.Equal(theirs, disk) {
			t.Errorf("%d blocks: veritysetup writes %d bytes, %v; Make makes others, or another number: %d", blocks, len(theirs), err, len(disk))
		}
	}
}

func TestOnlyTheWantedTreeIsFound(t *testing.T) {
	const blocks = 3 * fanout
	at := int64(blocks * Block)
	other := func(change func(disk []byte)) []byte {
		disk, _ := image(t, blocks)
		change(disk)
		return disk
	}
	_, root := image(t, blocks)
	for name, test := range map[string]struct {
		disk []byte
		at   int64
		want error
	}{
		"as it was made":    {other(func([]byte) {}), at, nil},
		"another place":     {other(func([]byte) {}), at - Block, ErrNone},
		"no place":          {other(func([]byte) {}), at + 1, ErrNone},
		"nothing before it": {other(func([]byte) {}), 0, ErrNone},
		"zeros":             {make([]byte, at+10*Block), at, ErrNone},
		"another algorithm": {other(func(d []byte) { copy(d[at+32:], "sha512") }), at, ErrNone},
		"other blocks":      {other(func(d []byte) { d[at+65] ^= 1 }), at, ErrNone},
		"less data":         {other(func(d []byte) { d[at+72] ^= 1 }), at, ErrNone},
		"a longer salt":     {other(func(d []byte) { d[at+80]++ }), at, ErrNone},
		"another salt":      {other(func(d []byte) { d[at+88] ^= 1 }), at, ErrOther},
		"another root":      {other(func(d []byte) { d[at+Block] ^= 1 }), at, ErrOther},
	} {
		if _, err := Find(bytes.NewReader(test.disk), test.at, root); !errors.Is(err, test.want) {
			t.Errorf("%s: %v; want %v", name, err, test.want)
		}
	}
	short, _ := image(t, blocks)
	if _, err := Find(bytes.NewReader(short[:at+Block]), at, root); err == nil {
		t.Error("a superblock without a tree is found")
	}
}

func TestMakeWantsWholeBlocks(t *testing.T) {
	for _, size := range []int64{0, Block, 2*Block + 1} {
		if _, _, err := Make(bytes.NewReader(make([]byte, 3*Block)), size); err == nil {
			t.Errorf("Make of %d bytes succeeds", size)
		}
	}
	if _, _, err := Make(bytes.NewReader(make([]byte, Block)), 2*Block); err == nil {
		t.Error("Make of more than there is succeeds")
	}
}

func TestTarget(t *testing.T) {
	disk, root := image(t, 2)
	tree, err := Find(bytes.NewReader(disk), 2*Block, root)
	if err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf("1 254:3 254:3 4096 4096 2 3 sha256 %s %x", root, tree.salt)
	if got := tree.Target("254:3"); got != want || tree.Size() != 2*Block {
		t.Errorf("Target = %q of %d bytes; want %q", got, tree.Size(), want)
	}
}

func TestParseHash(t *testing.T) {
	text := strings.Repeat("0123456789abcdef", 4)
	if h, err := ParseHash(text); err != nil || h.String() != text {
		t.Errorf("ParseHash(%q) = %v, %v", text, h, err)
	}
	for _, wrong := range []string{"", text[1:], text + "0", strings.Replace(text, "a", "g", 1)} {
		if h, err := ParseHash(wrong); err == nil {
			t.Errorf("ParseHash(%q) = %v", wrong, h)
		}
	}
}

func FuzzFind(f *testing.F) {
	disk, root := image(f, 2)
	f.Add(disk, root[:])
	f.Fuzz(func(t *testing.T, disk, root []byte) {
		if len(root) != len(Hash{}) {
			return
		}
		if tree, err := Find(bytes.NewReader(disk), 2*Block, Hash(root)); err == nil && (tree.Root != Hash(root) || tree.Size() != 2*Block) {
			t.Errorf("Find = %+v", tree)
		}
	})
}
