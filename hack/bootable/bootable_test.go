package bootable_test

import (
	"bytes"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cosi-os/cosi/api/layout/bootentry"
	"github.com/cosi-os/cosi/api/layout/verity"
	"github.com/cosi-os/cosi/api/upgrade"
	"github.com/cosi-os/cosi/hack/bootable"
	"github.com/cosi-os/cosi/hack/bootable/bootabletest"
)

// open is the disk with all that.
func open(t *testing.T, c bootabletest.Contents) *bootable.Disk {
	t.Helper()
	d, err := bootable.Open(c.Disk(t))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestNext(t *testing.T) {
	a, b := bootabletest.Version(t, "1"), bootabletest.Version(t, "2")
	first := bootentry.Entry{Number: 1, State: bootentry.Good}
	trial := bootentry.Entry{Number: 2, State: bootentry.Trying, Left: 2, Done: 1, Root: b.Root}
	kernel := func(v bootable.Version) string { return bootentry.Entry{Root: v.Root}.Kernel() }
	configured := func(v bootable.Version) string { return bootentry.Entry{Root: v.Root}.GRUBFile() }
	rename := func(c *bootabletest.Contents, state bootentry.State, left int) {
		e := trial
		e.State, e.Left = state, left
		c.Files[e.Path()] = c.Files[trial.Path()]
		delete(c.Files, trial.Path())
	}
	env := func(e bootentry.Env) func(*bootabletest.Contents) {
		return func(c *bootabletest.Contents) { c.Files[bootentry.EnvFile] = string(e.Encode()) }
	}
	for _, test := range []struct {
		name     string
		firmware bootable.Firmware
		change   func(c *bootabletest.Contents)
		want     string // version and state, or what the error says
	}{
		{"on trial", bootable.UEFI, func(*bootabletest.Contents) {}, "2 Trying in root-b"},
		{"blessed", bootable.UEFI, func(c *bootabletest.Contents) { rename(c, bootentry.Good, 0) }, "2 Good in root-b"},
		{"no tries left", bootable.UEFI, func(c *bootabletest.Contents) { rename(c, bootentry.Bad, 0) }, "1 Good in root-a"},
		{"no entry yet", bootable.UEFI, func(c *bootabletest.Contents) { delete(c.Files, trial.Path()); c.Slots[1] = "half" }, "1 Good in root-a"},
		{"the other way round", bootable.UEFI, func(c *bootabletest.Contents) { c.Slots[0], c.Slots[1] = c.Slots[1], c.Slots[0] }, "2 Trying in root-a"},
		{"half a kernel", bootable.UEFI, func(c *bootabletest.Contents) { c.Files[kernel(b)] = c.Files[kernel(b)][:4096] }, "version 2: " + kernel(b) + ": not the "},
		{"a longer kernel", bootable.UEFI, func(c *bootabletest.Contents) { c.Files[kernel(b)] += "!" }, "version 2: FAT: " + kernel(b) + ": longer than "},
		{"no kernel", bootable.UEFI, func(c *bootabletest.Contents) { delete(c.Files, kernel(b)) }, "version 2: FAT: " + kernel(b)},
		{"another root", bootable.UEFI, func(c *bootabletest.Contents) { c.Slots[1] = strings.Replace(c.Slots[1], "root of 2", "root of 3", 1) }, "version 2: no slot holds its root"},
		{"half a tree", bootable.UEFI, func(c *bootabletest.Contents) { c.Slots[1] = c.Slots[1][:bootabletest.DataSize+verity.Block] }, "version 2: no slot holds its root"},
		{"nothing to go back to", bootable.UEFI, func(c *bootabletest.Contents) { delete(c.Files, kernel(a)) }, "2 of 2: version 1: FAT: " + kernel(a)},
		{"none is good", bootable.UEFI, func(c *bootabletest.Contents) { delete(c.Files, first.Path()) }, "1 entries, and none is good"},
		{"of nobody", bootable.UEFI, func(c *bootabletest.Contents) {
			c.Files[trial.Path()] = strings.ReplaceAll(trial.Text(), trial.Root.String(), strings.Repeat("0a", 32))
		}, "of no version that there is"},
		{"half an entry", bootable.UEFI, func(c *bootabletest.Contents) { c.Files[trial.Path()] = "title" }, "names no unified kernel image"},

		{"GRUB, on trial", bootable.BIOS, env(bootentry.Env{Good: a.Root, Trial: b.Root, Left: 1}), "2 Trying in root-b"},
		{"GRUB, blessed", bootable.BIOS, env(bootentry.Env{Good: b.Root}), "2 Good in root-b"},
		{"GRUB, no tries left", bootable.BIOS, env(bootentry.Env{Good: a.Root, Trial: b.Root}), "1 Good in root-a"},
		{"GRUB, not told", bootable.BIOS, func(c *bootabletest.Contents) {
			env(bootentry.Env{Good: b.Root})(c)
			delete(c.Files, configured(b))
		}, "version 2: FAT: " + configured(b)},
		{"GRUB, without its block", bootable.BIOS, func(*bootabletest.Contents) {}, "FAT: " + bootentry.EnvFile},
	} {
		c := bootabletest.Contents{Files: map[string]string{}, Slots: [2]string{string(a.Slot), string(b.Slot)}}
		c.Add(a, first)
		c.Add(b, trial)
		test.change(&c)
		next, err := open(t, c).Next(test.firmware, a, b)
		got := next.Version.Name + " " + string(next.State) + " in " + next.Slot
		if err != nil {
			got = err.Error()
		}
		if got != test.want && (err == nil || !strings.Contains(got, test.want)) {
			t.Errorf("%s: %s; want %s", test.name, got, test.want)
		}
	}
}

func TestVersionsAreRead(t *testing.T) {
	a := bootabletest.Version(t, "1")
	c := bootabletest.Contents{Files: map[string]string{}, Slots: [2]string{string(a.Slot), ""}}
	c.Add(a, bootentry.Entry{Number: 1, State: bootentry.Good})
	v, err := open(t, c).Installed()
	if err != nil || v.Name != "1" || v.Root != a.Root || !bytes.Equal(v.Slot, a.Slot) || !bytes.Equal(v.Kernel, a.Kernel) || !bytes.Equal(v.GRUB, a.GRUB) {
		t.Errorf("Installed = %s, %v", v.Root, err)
	}

	file := filepath.Join(t.TempDir(), "2.upgrade")
	write := func(m upgrade.Manifest) {
		var whole bytes.Buffer
		slot := append(bytes.Clone(a.Slot), make([]byte, bootabletest.DataSize+2*verity.Block-len(a.Slot))...)
		if err := upgrade.Write(&whole, m, nil, bytes.NewReader(slot), bytes.NewReader(a.Kernel), nil); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, whole.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	m := upgrade.Manifest{Version: "2", Arch: "amd64", BIOS: "boots 2", Root: upgrade.Root{Hash: a.Root.String(), Data: bootabletest.DataSize}}
	write(m)
	if v, err := bootable.ReadUpgrade(file); err != nil || v.Name != "2" || v.Root != a.Root || !bytes.HasPrefix(v.Slot, a.Slot) || string(v.GRUB) != "boots 2" {
		t.Errorf("ReadUpgrade = %s, %v", v.Root, err)
	}
	m.Root.Hash = strings.Repeat("0a", 32)
	write(m)
	if _, err := bootable.ReadUpgrade(file); err == nil || !strings.Contains(err.Error(), "2.upgrade: its hash tree is not that of its root") {
		t.Errorf("ReadUpgrade = %v", err)
	}
	maps.DeleteFunc(c.Files, func(path, _ string) bool { return strings.HasPrefix(path, bootentry.Dir) })
	if _, err := open(t, c).Installed(); err == nil {
		t.Error("a disk without entries has a version")
	}
}
