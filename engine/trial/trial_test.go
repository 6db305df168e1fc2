package trial

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cosi-os/cosi/api/layout/bootentry"
	"github.com/cosi-os/cosi/api/layout/verity"
	"github.com/cosi-os/cosi/images/content"
	images "github.com/cosi-os/cosi/images/fat"
)

var root, other = verity.Hash{1}, verity.Hash{2}

// boot is one from the second partition of a disk whose first is an ESP with files.
func boot(t *testing.T, files map[string]string) Boot {
	t.Helper()
	b := Boot{Sys: t.TempDir(), Dev: t.TempDir(), Partition: "/dev/vda2", Hash: root.String()}
	for partition, name := range map[string]string{"vda1": "esp", "vda2": "root-a"} {
		dir := filepath.Join(b.Sys, "devices/vda", partition)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "uevent"), []byte("DEVTYPE=partition\nPARTNAME="+name+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(filepath.Join(b.Sys, "class/block"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("../../devices/vda/vda2", filepath.Join(b.Sys, "class/block/vda2")); err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(filepath.Join(b.Dev, "vda1"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(images.MinSize); err != nil {
		t.Fatal(err)
	}
	all := []images.File{{Path: "EFI/BOOT/BOOTX64.EFI", Content: content.String("x")}}
	for path, text := range files {
		all = append(all, images.File{Path: path, Content: content.String(text)})
	}
	if err := images.Write(f, images.MinSize, all, images.Options{Time: time.Now()}); err != nil {
		t.Fatal(err)
	}
	return b
}

func TestOn(t *testing.T) {
	entry := func(number uint64, state bootentry.State, left int, root verity.Hash) bootentry.Entry {
		return bootentry.Entry{Number: number, State: state, Left: left, Version: "1", Root: root}
	}
	for name, test := range map[string]struct {
		entries []bootentry.Entry
		want    bool
	}{
		"no entries":              {nil, false},
		"a good one":              {[]bootentry.Entry{entry(1, bootentry.Good, 0, root)}, false},
		"on trial":                {[]bootentry.Entry{entry(1, bootentry.Good, 0, other), entry(2, bootentry.Trying, 2, root)}, true},
		"its last try":            {[]bootentry.Entry{entry(1, bootentry.Good, 0, other), entry(2, bootentry.Bad, 0, root)}, true},
		"another is on trial":     {[]bootentry.Entry{entry(1, bootentry.Good, 0, root), entry(2, bootentry.Trying, 2, other)}, false},
		"a blessing that was cut": {[]bootentry.Entry{entry(2, bootentry.Good, 0, root), entry(2, bootentry.Trying, 2, root)}, false},
	} {
		files := map[string]string{}
		for _, e := range test.entries {
			files[e.Path()] = e.Text()
		}
		if got, err := boot(t, files).On(); got != test.want || err != nil {
			t.Errorf("%s: %v, %v; want %v", name, got, err, test.want)
		}
	}
	b := boot(t, nil)
	for name, b := range map[string]Boot{"from memory": {Sys: b.Sys, Dev: b.Dev}, "no hash": {Sys: b.Sys, Dev: b.Dev, Partition: b.Partition}} {
		if on, err := b.On(); on || err != nil {
			t.Errorf("%s: %v, %v", name, on, err)
		}
	}
	b.Partition = "/dev/vdz9"
	if _, err := b.On(); err == nil {
		t.Error("a partition that is not there")
	}
	if err := os.WriteFile(filepath.Join(b.Dev, "vda1"), []byte(strings.Repeat("x", 4096)), 0o600); err != nil {
		t.Fatal(err)
	}
	b.Partition = "/dev/vda2"
	if _, err := b.On(); err == nil || !strings.Contains(err.Error(), "vda1: FAT: no FAT32 file system") {
		t.Errorf("a damaged ESP: %v", err)
	}
}
