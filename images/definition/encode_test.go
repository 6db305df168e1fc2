package definition

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What a definition and those that it extends say together is a definition again, which says the same.
func TestADefinitionIsWrittenAndReadAgain(t *testing.T) {
	file := write(t, "over.yaml", `name: over
extends: base.yaml
without: {plugins: [power]}
# A remark.
resources:
  - metadata: {type: Links.network.cosi.dev, id: four}
    spec: {up: false, name: "", mtu: "4"} # another
partitions: {extra: [{name: seed, size: 1MiB, content: seed.img}]}
`, "base.yaml", base, "seed.img", "seed")
	d, err := Load(file, "")
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Dir(file)
	first, err := d.YAML(func(path string) string { return strings.TrimPrefix(path, dir+"/") })
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"name: over\n", "content: seed.img\n", "up: false\n", "name: \"\"\n", "mtu: \"4\"\n", "disks_under_secure_boot: true\n", "- probe\n", "epoch: 2026-01-01T00:00:00Z\n"} {
		if want = strings.ReplaceAll(want, `"`, "'"); want != "- probe\n" && !strings.Contains(strings.ReplaceAll(string(first), `"`, "'"), want) {
			t.Errorf("no %q in\n%s", want, first)
		}
	}
	for _, unwanted := range []string{"remark", "another", "extends", "without", "power", "separate_plugins", "{"} {
		if strings.Contains(string(first), unwanted) {
			t.Errorf("%q is in\n%s", unwanted, first)
		}
	}
	again := filepath.Join(dir, "again.yaml")
	if err := os.WriteFile(again, first, 0o600); err != nil {
		t.Fatal(err)
	}
	if d, err = Load(again, ""); err != nil {
		t.Fatal(err)
	}
	if second, err := d.YAML(func(path string) string { return strings.TrimPrefix(path, dir+"/") }); err != nil || string(second) != string(first) {
		t.Errorf("read again, it says\n%s\n(%v); want\n%s", second, err, first)
	}
}
