package module

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const dep = `kernel/drivers/net/virtio_net.ko.xz: kernel/net/core/failover.ko.xz kernel/drivers/net/net_failover.ko.xz
kernel/fs/fat/vfat.ko.xz: kernel/fs/fat/fat.ko.xz
kernel/drivers/firmware/qemu-fw-cfg.ko:
# comment: no
no colon
`

func TestOrderPutsTheModuleLast(t *testing.T) {
	table := parseDep(dep)
	for module, want := range map[string]string{
		"virtio_net":  "kernel/drivers/net/net_failover.ko.xz kernel/net/core/failover.ko.xz kernel/drivers/net/virtio_net.ko.xz",
		"virtio-net":  "kernel/drivers/net/net_failover.ko.xz kernel/net/core/failover.ko.xz kernel/drivers/net/virtio_net.ko.xz",
		"vfat":        "kernel/fs/fat/fat.ko.xz kernel/fs/fat/vfat.ko.xz",
		"qemu_fw_cfg": "kernel/drivers/firmware/qemu-fw-cfg.ko",
	} {
		files, ok := table.order(module)
		if got := strings.Join(files, " "); !ok || got != want {
			t.Errorf("order(%q) = %q, %v; want %q", module, got, ok, want)
		}
	}
	if _, ok := table.order("zfs"); ok || len(table) != 3 {
		t.Errorf("%d modules; want 3", len(table))
	}
	if compressed("a.ko") || !compressed("a.ko.xz") || !compressed("a.ko.zst") {
		t.Error("compressed is wrong about .ko, .ko.xz or .ko.zst")
	}
}

func TestMatch(t *testing.T) {
	for _, test := range []struct {
		pattern, s string
		want       bool
	}{
		{"pci:v00001AF4d*sv*sd*bc*sc*i*", "pci:v00001AF4d00001041sv00001AF4sd00001100bc02sc00i00", true},
		{"pci:v00008086d*sv*sd*bc*sc*i*", "pci:v00001AF4d00001041sv00001AF4sd00001100bc02sc00i00", false},
		{"acpi*:PNP0C0C:*", "acpi:PNP0C0C:", true},
		{"acpi*:PNP0C0C:*", "acpi:LNXPWRBN:", false},
		{"usb:v*p*d*dc*dsc*dp*ic08isc06ip[56]0in*", "usb:v0d00isc0dc0dsc0dp0ic08isc06ip50in00", false},
		{"ip[5-7]0", "ip60", true},
		{"ip[!5-7]0", "ip60", false},
		{"ip[6", "ip6", false},
		{"a?c", "abc", true},
		{"*", "", true},
		{"", "a", false},
	} {
		if got := match(test.pattern, test.s); got != test.want {
			t.Errorf("match(%q, %q) = %v; want %v", test.pattern, test.s, got, test.want)
		}
	}
}

func TestAliases(t *testing.T) {
	a := parseAlias("# Aliases\nalias acpi*:PNP0C0C:* button\nalias virtio:d00000001v* virtio_net\nalias virtio:d00000001v* other\nalias broken\n")
	for modalias, want := range map[string][]string{
		"acpi:PNP0C0C:":             {"button"},
		"virtio:d00000001v00001AF4": {"virtio_net", "other"},
		"virtio:d00000002v00001AF4": nil,
		"usb:v1":                    nil,
	} {
		if got := a.modules(modalias); !slices.Equal(got, want) {
			t.Errorf("modules(%q) = %q; want %q", modalias, got, want)
		}
	}
}

func FuzzParseDep(f *testing.F) {
	f.Add(dep)
	f.Add("a.ko: a.ko a.ko\n:\n.ko:")
	f.Fuzz(func(t *testing.T, text string) {
		table := parseDep(text)
		for module, e := range table {
			files, ok := table.order(module)
			if !ok || files[len(files)-1] != e.file {
				t.Errorf("order(%q) = %q, %v", module, files, ok)
			}
		}
	})
}

// FuzzMatch holds match against path.Match where both know the pattern: no slash, no escape, no set.
func FuzzMatch(f *testing.F) {
	f.Add("pci:v*d*", "pci:v1d2")
	f.Add("**a?", "xab")
	f.Fuzz(func(t *testing.T, pattern, s string) {
		got := match(pattern, s)
		for _, c := range pattern + s {
			if c == '/' || c == '\\' || c == '[' || c > 0x7e {
				return
			}
		}
		if want, err := path.Match(pattern, s); err == nil && got != want {
			t.Errorf("match(%q, %q) = %v; want %v", pattern, s, got, want)
		}
	})
}

func FuzzParseAlias(f *testing.F) {
	f.Add("alias pci:v*d* virtio_pci\n", "pci:v1d2")
	f.Add("alias * x", "y")
	f.Fuzz(func(t *testing.T, text, modalias string) {
		for _, module := range parseAlias(text).modules(modalias) {
			if !strings.Contains(text, module) {
				t.Errorf("module %q is not in %q", module, text)
			}
		}
	})
}

// A device says in one of two ways what it wants. What Linux 6.12 shows of an SD card has no file modalias.
func TestModalias(t *testing.T) {
	for name, tc := range map[string]struct{ file, text, want string }{
		"virtio":     {"modalias", "virtio:d00000002v00001AF4\n", "virtio:d00000002v00001AF4"},
		"an SD card": {"uevent", "MMC_TYPE=SD\nMMC_NAME=SA04G\nMODALIAS=mmc:block\n", "mmc:block"},
		"SDIO":       {"uevent", "MMC_TYPE=SDIO\nSDIO_ID=02D0:4329\n", ""},
		"it is gone": {"", "", ""},
	} {
		file := filepath.Join(t.TempDir(), "modalias")
		if tc.file != "" {
			file = filepath.Join(filepath.Dir(file), tc.file)
			if err := os.WriteFile(file, []byte(tc.text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if got := modalias(file); got != tc.want {
			t.Errorf("%s: %q; want %q", name, got, tc.want)
		}
	}
}

// TestAsk asks for what the kernel of any machine has, and for what no image has. Loading is for a virtual machine.
func TestAsk(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "modules.alias"), []byte("alias fs-bogus bogus\nalias fs-other other\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "modules.builtin"), []byte("kernel/drivers/builtin-bogus.ko\nkernel/fs/bogusfs/bogusfs.ko\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	l := &Loader{dir: dir, table: parseDep("kernel/bogus.ko:\n"), loaded: map[string]bool{}}
	for name, want := range map[string]error{
		"fs-proc": nil, "kernel": nil, "builtin-bogus": nil, "builtin_bogus": nil, // built in
		"fs-other": ErrMissing, "nosuchmodule": ErrMissing, "": ErrMissing, "..": ErrMissing, "../module/kernel": ErrMissing, "fs-": ErrMissing, "fs-bogusfs": ErrMissing,
		"bogus": fs.ErrNotExist, "fs-bogus": fs.ErrNotExist, // the image's list has it
	} {
		if builtIn, err := l.Ask(name, ""); !errors.Is(err, want) || builtIn != (want == nil) {
			t.Errorf("%q: %v, %v; want %v", name, builtIn, err, want)
		}
	}
}

// What the plugins need at once may be a module of one kernel and built into another.
func TestLoadIsContentWithWhatIsBuiltIn(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "modules.builtin"), []byte("kernel/drivers/firmware/qemu-bogus.ko\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	l := &Loader{dir: dir, loaded: map[string]bool{}}
	if err := l.Load("qemu_bogus"); err != nil {
		t.Error(err)
	}
	if err := l.Load("other_bogus"); err == nil {
		t.Error("a module that is nowhere was loaded")
	}
}

func TestNetwork(t *testing.T) {
	for modalias, want := range map[string]bool{
		"virtio:d00000001v00001AF4":                                 true,
		"virtio:d00000002v00001AF4":                                 false,
		"virtio:d00000010v00001AF4":                                 false,
		"pci:v00008086d000010D3sv00008086sd0000A01Fbc02sc00i00":     true,
		"pci:v00008086d00002922sv00001AF4sd00001100bc01sc06i01":     false,
		"usb:v0BDAp8153d3000dc00dsc00dp00icFFiscFFip00in00bc02sc00": false,
		"vmbus:635161f83edfc546913ff2d2f965ed0e":                    true,
		"vmbus:d96361baa104294db60572e2ffb1dc7f":                    false,
	} {
		if got := Network(modalias); got != want {
			t.Errorf("Network(%q) = %v; want %v", modalias, got, want)
		}
	}
}
