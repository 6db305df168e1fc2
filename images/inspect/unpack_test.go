package inspect

import (
	"bytes"
	"io"
	"strings"
	"testing"

	"github.com/cosi-os/cosi/images/content"
	"github.com/cosi-os/cosi/images/pack"
)

// A compressed disk is unpacked to what it was, in the length it had.
func TestUnpackGivesWhatWasPacked(t *testing.T) {
	disk := strings.Repeat("\x00", 200<<10) + "data" + strings.Repeat("\x00", 100<<10)
	for format, want := range map[pack.Format]Format{pack.Zstandard: RawZstandard, pack.Gzip: RawGzip, pack.XZ: RawXZ} {
		packed := &bytes.Buffer{}
		if err := format.Write(packed, content.String(disk)); err != nil {
			t.Fatal(err)
		}
		got, inner, err := unpack(bytes.NewReader(packed.Bytes()), int64(packed.Len()))
		if err != nil || got != want || inner == nil {
			t.Fatalf("unpack of %s = %q, %v", format, got, err)
		}
		defer inner.Close()
		if plain, err := io.ReadAll(io.NewSectionReader(inner, 0, 1<<30)); err != nil || string(plain) != disk {
			t.Errorf("%s: %d bytes, %v; want the %d that were packed", format, len(plain), err, len(disk))
		}
	}
}
