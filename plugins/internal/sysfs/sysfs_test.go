package sysfs

import (
	"os"
	"path/filepath"
	"testing"
)

func TestAttributes(t *testing.T) {
	a := Attributes{t.TempDir()}
	for name, text := range map[string]string{"serial": " S4\x00\x00", "size": "8\n", "ro": "1\n", "odd": "a\xff", "uevent": "DEVNAME=sda\nPARTNAME=a=b\nx\n"} {
		if err := os.WriteFile(filepath.Join(a.Dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if a.Text("serial") != "S4" || a.Text("none") != "" || a.Text("odd") != "a\uFFFD" || a.First("none", "serial") != "S4" || a.First("none") != "" {
		t.Errorf("texts: %q, %q, %q", a.Text("serial"), a.Text("none"), a.Text("odd"))
	}
	if a.Number("size") != 8 || a.Number("serial") != 0 || !a.Flag("ro") || a.Flag("size") || !a.Has("ro") || a.Has("none") {
		t.Errorf("numbers: %d, %d", a.Number("size"), a.Number("serial"))
	}
	if v := a.Variables(); len(v) != 2 || v["DEVNAME"] != "sda" || v["PARTNAME"] != "a=b" {
		t.Errorf("variables: %v", v)
	}
}
