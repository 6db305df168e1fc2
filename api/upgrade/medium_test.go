package upgrade

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"strings"
	"testing"
)

// mediumWith is an ISO 9660 volume with a file in its root directory, and with what is shared at 80000.
func mediumWith(name string, content []byte) []byte {
	b := make([]byte, 100_000)
	copy(b[16*2048:], "\x01CD001\x01")
	binary.LittleEndian.PutUint32(b[16*2048+156+2:], 20)
	directory := b[20*2048:]
	add := func(name string, lba, size int) {
		n := (33 + len(name) + 1) / 2 * 2
		directory[0], directory[32] = byte(n), byte(len(name))
		binary.LittleEndian.PutUint32(directory[2:], uint32(lba))
		binary.LittleEndian.PutUint32(directory[10:], uint32(size))
		copy(directory[33:], name)
		directory = directory[n:]
	}
	add("\x00", 20, 2048)
	add("\x01", 20, 2048)
	add("ESP.IMG;1", 24, 5000)
	add(name, 30, len(content))
	copy(b[30*2048:], content)
	copy(b[80_000:], shared)
	return b
}

var shared = strings.Repeat("shared", 3000)

func recipeOf(t *testing.T, file string) []byte {
	t.Helper()
	var b bytes.Buffer
	at := int64(strings.Index(file, shared))
	if err := WriteRecipe(&b, strings.NewReader(file), int64(len(file)), "digest", []Shared{{at, 80_000, int64(len(shared))}}); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestAFileIsPutTogether(t *testing.T) {
	for _, file := range []string{"before" + shared + "behind", shared + "behind", "before" + shared, shared} {
		m, err := OpenMedium(bytes.NewReader(mediumWith(MediumFile+";1", recipeOf(t, file))))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(m); err != nil || string(got) != file || m.Digest != "digest" || m.Size != int64(len(file)) {
			t.Errorf("%.10q…: %d of %d bytes, %v", file, len(got), len(file), err)
		}
	}
}

func TestMediaThatAreNone(t *testing.T) {
	recipe := recipeOf(t, "before"+shared)
	line := bytes.IndexByte(recipe, '\n') + 1
	for want, data := range map[string][]byte{
		ErrNoMedium.Error() + ": EOF":       make([]byte, 5000),
		ErrNoMedium.Error():                 make([]byte, 100_000),
		"no installation medium":            mediumWith("OTHER.DAT;1", recipe),
		"UPGRADE.DAT: unexpected EOF":       mediumWith(MediumFile+";1", recipe[:line-1]),
		"UPGRADE.DAT: invalid character":    mediumWith(MediumFile+";1", []byte("x\nx")),
		"UPGRADE.DAT: gzip: invalid header": mediumWith(MediumFile+";1", append(recipe[:line:line], "nothing that was compressed"...)),
		"UPGRADE.DAT: -6 bytes at 0":        mediumWith(MediumFile+";1", bytes.Replace(recipe, []byte(`"size":6`), []byte(`"size":-6`), 1)),
	} {
		if _, err := OpenMedium(bytes.NewReader(data)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v; want %q", err, want)
		}
	}
	if _, err := OpenMedium(bytes.NewReader(make([]byte, 5000))); !errors.Is(err, ErrNoMedium) {
		t.Error(err)
	}
	// One that ends early.
	m, err := OpenMedium(bytes.NewReader(mediumWith(MediumFile+";1", recipe[:len(recipe)-9])))
	if err == nil {
		_, err = io.ReadAll(m)
	}
	if err == nil {
		t.Error("nobody sees that the file is cut")
	}
}
