package mountevents

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	eventspb "github.com/cosi-os/cosi/api/cosi/events/v1alpha1"
	storagepb "github.com/cosi-os/cosi/api/cosi/storage/v1alpha1"
	"github.com/cosi-os/cosi/engine/runtime/plugintest"
	"github.com/cosi-os/cosi/plugins/internal/doorbell"
	"github.com/cosi-os/cosi/sdk"
)

// start runs the plugin on this machine's mount table, by the sources from the first on.
func start(t *testing.T, first int) *plugintest.Runtime {
	t.Helper()
	r := plugintest.Start(t, declared)
	t.Setenv(sdk.EnvEndpoint, r.Endpoint)
	f := &faults{}
	g := newGenerator(&doorbell.Bell[note]{Sources: sources(f, 50*time.Millisecond)[first:]}, f)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); _ = sdk.Run(ctx, plugin(g)) }()
	t.Cleanup(func() { cancel(); <-done })
	status := &eventspb.GeneratorStatus{}
	r.Wait("it hears", func() bool { return r.Get(name, status) != nil && status.GetMode() != "" && status.GetMode() != "none" })
	t.Logf("it hears by %s; unavailable: %v", status.GetMode(), status.GetUnavailable())
	return r
}

// find returns the latest event of an action at a target, nil if there is none.
func find(r *plugintest.Runtime, action, target string) (found *eventspb.MountEvent) {
	for id := uint64(1); ; id++ {
		e := &eventspb.MountEvent{}
		if r.Get(doorbell.ID(id), e) == nil {
			return found
		}
		if e.GetAction() == action && e.GetTarget() == target {
			found = e
		}
	}
}

func wait(t *testing.T, r *plugintest.Runtime, action, target string) (e *eventspb.MountEvent) {
	t.Helper()
	r.Wait(target+" "+action, func() bool { e = find(r, action, target); return e != nil })
	if e.GetTime() == nil || e.GetBoottimeNs() == 0 {
		t.Errorf("%v has no time", e)
	}
	return e
}

// permitted skips the test where only the right is missing.
func permitted(t *testing.T, err error) {
	t.Helper()
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
		t.Skipf("not permitted here: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func mount(t *testing.T, source, target, fstype, data string) {
	t.Helper()
	if err := os.Mkdir(target, 0o755); err != nil {
		t.Fatal(err)
	}
	permitted(t, unix.Mount(source, target, fstype, 0, data))
	t.Cleanup(func() { unix.Unmount(target, unix.MNT_DETACH) })
}

// Other mounts of this machine may come and go meanwhile; the test looks at its own.
func TestMountsThatNobodyAskedFor(t *testing.T) {
	for name, first := range map[string]int{"BestMode": 0, "WithoutEBPF": 2} {
		t.Run(name, func(t *testing.T) { mountsThatNobodyAskedFor(t, start(t, first)) })
	}
}

func mountsThatNobodyAskedFor(t *testing.T, r *plugintest.Runtime) {
	dir := t.TempDir()
	stranger, asked, last := filepath.Join(dir, "stranger"), filepath.Join(dir, "asked"), filepath.Join(dir, "last")
	mount(t, "s", stranger, "tmpfs", "")
	if e := wait(t, r, "Mounted", stranger); e.GetSource() != "s" || e.GetFstype() != "tmpfs" || e.GetDevice() != "" {
		t.Errorf("event %v", e)
	}
	permitted(t, unix.Mount("", stranger, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""))
	wait(t, r, "ReadOnly", stranger)
	permitted(t, unix.Mount("", stranger, "", unix.MS_REMOUNT, ""))
	wait(t, r, "Writable", stranger)
	permitted(t, unix.Unmount(stranger, 0))
	wait(t, r, "Unmounted", stranger)

	point := &storagepb.MountPoint{Source: "a", Target: asked, Fstype: "tmpfs"}
	r.Apply("asked", point)
	mount(t, "a", asked, "tmpfs", "")
	r.Apply("asked", &storagepb.MountPoint{Source: "a", Target: asked, Fstype: "tmpfs", Flags: []string{"ro"}})
	permitted(t, unix.Mount("", asked, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""))
	r.Delete("asked", point)
	permitted(t, unix.Unmount(asked, 0))
	mount(t, "l", last, "tmpfs", "") // an event that is later than all that is no event
	wait(t, r, "Mounted", last)
	for _, action := range []string{"Mounted", "ReadOnly", "Unmounted"} {
		if e := find(r, action, asked); e != nil {
			t.Errorf("what a MountPoint asked for is an event: %v", e)
		}
	}

	r.Apply("last", &storagepb.MountPoint{Source: "l", Target: last, Fstype: "tmpfs"})
	permitted(t, unix.Unmount(last, 0))
	wait(t, r, "Unmounted", last) // somebody else did
}

// A file whose inode is broken: the file system says so, and writes no more.
func TestErrorsOfAFileSystem(t *testing.T) {
	dir := t.TempDir()
	device := loop(t, brokenExt4(t, dir))
	r := start(t, 2) // without eBPF
	target := filepath.Join(dir, "data")
	mount(t, device, target, "ext4", "errors=remount-ro")
	wait(t, r, "Mounted", target)
	if _, err := os.Open(filepath.Join(target, "victim")); err == nil {
		t.Fatal("the broken file opens")
	}
	e := wait(t, r, "FileSystemError", target)
	if e.GetSource() != device || e.GetDevice() != filepath.Base(device) || e.GetFstype() != "ext4" || e.GetMessage() == "" {
		t.Errorf("event %v; want the device and the error", e)
	}
	if e := wait(t, r, "ReadOnly", target); e.GetDevice() != filepath.Base(device) {
		t.Errorf("event %v; want the device", e)
	}
	if healthy, broken := refusal(dir), refusal(target); healthy != "" || broken == "" {
		t.Errorf("refusal = %q, %q; want that of the broken one", healthy, broken)
	}
}

// brokenExt4 makes an image with a file "victim", the inode of which is then wiped.
func brokenExt4(t *testing.T, dir string) string {
	t.Helper()
	image := filepath.Join(dir, "image")
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, 4<<20); err != nil {
		t.Fatal(err)
	}
	for _, command := range [][]string{
		{"mke2fs", "-q", "-t", "ext4", image}, {"debugfs", "-w", "-R", "write /dev/null victim", image}, {"debugfs", "-w", "-R", "clri victim", image},
	} {
		if out, err := exec.Command(command[0], command[1:]...).CombinedOutput(); err != nil || bytes.Contains(out, []byte("not found")) {
			t.Fatalf("%q (hack/setup installs it): %v %s", command, err, out)
		}
	}
	return image
}

// loop makes a block device of an image.
func loop(t *testing.T, image string) string {
	t.Helper()
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if errors.Is(err, os.ErrNotExist) {
		t.Skipf("no loop device here: %v", err)
	}
	permitted(t, err)
	defer control.Close()
	number, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
	permitted(t, err)
	device := fmt.Sprintf("/dev/loop%d", number)
	l, err := os.OpenFile(device, os.O_RDWR, 0)
	permitted(t, err)
	t.Cleanup(func() { l.Close() })
	file, err := os.OpenFile(image, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if err := unix.IoctlSetInt(int(l.Fd()), unix.LOOP_SET_FD, int(file.Fd())); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.IoctlSetInt(int(l.Fd()), unix.LOOP_CLR_FD, 0) })
	return device
}
