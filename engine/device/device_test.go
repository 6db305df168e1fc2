package device

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cosi-os/cosi/api/declaration"
)

func plugin(name string, devices ...declaration.Device) *declaration.Declaration {
	return &declaration.Declaration{Name: name, Devices: devices}
}

func TestEachPatternHasAGroupOfItsOwn(t *testing.T) {
	a := NewAccess([]*declaration.Declaration{
		plugin("disk", declaration.Device{Path: "/dev/vd*", Write: true}, declaration.Device{Path: "/dev/sr0"}),
		plugin("userdata", declaration.Device{Path: "/dev/vd*"}),
		plugin("power", declaration.Device{Path: "/dev/input/event*"}),
		plugin("network"),
	})
	for name, want := range map[string][]uint32{"disk": {10001, 10002}, "userdata": {10002}, "power": {10000}, "network": nil} {
		if got := a.Groups(name); !slices.Equal(got, want) {
			t.Errorf("Groups(%q) = %v; want %v", name, got, want)
		}
	}
	for _, test := range []struct {
		node string
		gid  uint32
		mode os.FileMode
		ok   bool
	}{
		{"/dev/vda", 10002, 0o660, true},
		{"/dev/sr0", 10001, 0o640, true},
		{"/dev/input/event3", 10000, 0o640, true},
		{"/dev/input/mouse0", 0, 0, false},
		{"/dev/mem", 0, 0, false},
	} {
		if gid, mode, ok := a.of(test.node); gid != test.gid || mode != test.mode || ok != test.ok {
			t.Errorf("of(%q) = %d, %o, %v; want %d, %o, %v", test.node, gid, mode, ok, test.gid, test.mode, test.ok)
		}
	}
}

func TestGrantChangesDeviceNodesOnly(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root makes device nodes")
	}
	dir := t.TempDir()
	for name, mode := range map[string]uint32{"null": 0o666, "mem": 0o600} {
		path := filepath.Join(dir, name)
		if err := unix.Mknod(path, unix.S_IFCHR|mode, int(unix.Mkdev(1, 3))); err != nil {
			if errors.Is(err, unix.EPERM) {
				t.Skip("making device nodes is not permitted here")
			}
			t.Fatal(err)
		}
		os.Chmod(path, os.FileMode(mode))
	}
	if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	a := NewAccess([]*declaration.Declaration{plugin("x", declaration.Device{Path: dir + "/*"}, declaration.Device{Path: dir + "/absent"})})
	if problems := a.GrantAll(); problems != nil {
		t.Fatal(problems)
	}
	for name, want := range map[string]struct{ mode, gid uint32 }{"null": {0o666, 0}, "mem": {0o640, 10000}, "file": {0o600, 0}} {
		var stat unix.Stat_t
		if err := unix.Stat(filepath.Join(dir, name), &stat); err != nil {
			t.Fatal(err)
		}
		if stat.Mode&0o777 != want.mode || stat.Gid != want.gid {
			t.Errorf("%s: mode %o, group %d; want %o, %d", name, stat.Mode&0o777, stat.Gid, want.mode, want.gid)
		}
	}
}

func TestParse(t *testing.T) {
	event, ok := parse("add@/devices/virtio0/block/vda\x00ACTION=add\x00SUBSYSTEM=block\x00DEVNAME=vda\x00MODALIAS=virtio:d1v2\x00SEQNUM=7\x00")
	if want := (Event{"add", "/devices/virtio0/block/vda", "block", "vda", "virtio:d1v2", false}); !ok || event != want {
		t.Errorf("parse = %+v, %v; want %+v", event, ok, want)
	}
	event, ok = parse("change@/devices/usb1/block/sda\x00ACTION=change\x00SUBSYSTEM=block\x00DISK_MEDIA_CHANGE=1\x00DEVNAME=sda\x00")
	if want := (Event{"change", "/devices/usb1/block/sda", "block", "sda", "", true}); !ok || event != want {
		t.Errorf("parse = %+v, %v; want %+v", event, ok, want)
	}
	for _, bad := range []string{"", "libudev\x00x", "@/devices"} {
		if _, ok := parse(bad); ok {
			t.Errorf("parse(%q) found an event", bad)
		}
	}
}

func TestWatchEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	ready := make(chan struct{})
	done := make(chan error)
	go func() { done <- Watch(ctx, ready, func(Event) {}) }()
	<-ready
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add("add@/devices/x\x00DEVNAME=/dev/../etc/passwd\x00")
	f.Add("@\x00=\x00")
	f.Fuzz(func(t *testing.T, message string) {
		if event, ok := parse(message); ok && filepath.Clean("/dev/"+event.Node) == "/etc/passwd" {
			t.Errorf("parse(%q) leaves /dev: %+v", message, event)
		}
	})
}
func TestDirectory(t *testing.T) {
	for pattern, want := range map[string]string{
		"/dev/vd*": "/dev", "/dev/input/event*": "/dev/input", "/dev/kmsg": "/dev", "/dev/dri/*/x": "/dev/dri",
	} {
		if got := Directory(pattern); got != want {
			t.Errorf("Directory(%q) = %q; want %q", pattern, got, want)
		}
	}
}
