package mount

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	kernelpb "github.com/cosi-os/cosi/api/cosi/kernel/v1alpha1"
	storagepb "github.com/cosi-os/cosi/api/cosi/storage/v1alpha1"
	"github.com/cosi-os/cosi/engine/runtime/plugintest"
	"github.com/cosi-os/cosi/plugins/internal/mountinfo"
	"github.com/cosi-os/cosi/sdk"
)

// The test binary runs itself again in a mount namespace of its own, and from there as the plugin.
const (
	envNamespace = "COSI_TEST_NAMESPACE"
	envPlugin    = "COSI_TEST_PLUGIN"
	refused      = "refused"
)

func TestMain(m *testing.M) {
	switch {
	case os.Getenv(envPlugin) != "":
		os.Args = os.Args[:1]
		sdk.Main(Plugin())
	case slices.ContainsFunc(os.Args, func(arg string) bool { return strings.HasPrefix(arg, "-test.fuzz") }):
		os.Setenv(envNamespace, refused) // the fuzzer's workers are its own children
	}
	if os.Getenv(envNamespace) != "" {
		os.Exit(m.Run())
	}
	again := exec.Command("/proc/self/exe", os.Args[1:]...)
	again.Stdin, again.Stdout, again.Stderr = os.Stdin, os.Stdout, os.Stderr
	again.Env = append(os.Environ(), envNamespace+"=own")
	again.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS}
	err := again.Run()
	if errors.Is(err, unix.EPERM) {
		os.Setenv(envNamespace, refused)
		os.Exit(m.Run())
	}
	if err != nil {
		os.Exit(1)
	}
}

// node is a runtime, and an empty /run of the test's own to mount in.
func node(t *testing.T) *plugintest.Runtime {
	t.Helper()
	if os.Getenv(envNamespace) == refused {
		t.Skip("the kernel refuses a mount namespace of its own: unshare(CLONE_NEWNS) is not permitted")
	}
	if err := unix.Mount("tmpfs", "/run", "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount("/run", unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return plugintest.Start(t, declared)
}

func start(t *testing.T, r *plugintest.Runtime) (stop func()) {
	t.Helper()
	t.Setenv(sdk.EnvEndpoint, r.Endpoint)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); _ = sdk.Run(ctx, Plugin()) }()
	stop = sync.OnceFunc(func() { cancel(); <-done })
	t.Cleanup(stop)
	return stop
}

func tmpfs(target string, flags ...string) *storagepb.MountPoint {
	return &storagepb.MountPoint{Source: "tmpfs", Target: target, Fstype: "tmpfs", Flags: flags, Data: "size=1m"}
}

// waitFor waits until the status of id answers to the present MountPoint with reason, and returns it.
func waitFor(t *testing.T, r *plugintest.Runtime, id, reason string) *storagepb.MountPointStatus {
	t.Helper()
	st := &storagepb.MountPointStatus{}
	defer func() {
		if t.Failed() {
			t.Logf("status of %s: %v", id, st)
		}
	}()
	r.Wait(id+" is "+reason, func() bool {
		return r.Get(id, st) != nil && st.GetReason() == reason && st.GetObservedVersion() == r.Get(id, &storagepb.MountPoint{}).GetVersion()
	})
	if st.GetReady() != (reason == reasonMounted) {
		t.Errorf("%s: ready = %v with the reason %s", id, st.GetReady(), reason)
	}
	return st
}

func mountsAt(t *testing.T, target string) (found []mountinfo.Mount) {
	t.Helper()
	all, err := mountinfo.Read()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range all {
		if m.Target == target {
			found = append(found, m)
		}
	}
	return found
}

func TestMountAndDeleteTwice(t *testing.T) {
	r := node(t)
	start(t, r)
	for range 2 {
		r.Apply("data", tmpfs("/run/mnt/data", "nosuid", "nodev"))
		st := waitFor(t, r, "data", reasonMounted)
		found := mountsAt(t, "/run/mnt/data")
		if len(found) != 1 || !slices.Contains(found[0].Flags, "nosuid") || !slices.Contains(found[0].Flags, "nodev") {
			t.Fatalf("mounted = %+v, want one with nosuid and nodev", found)
		}
		if st.GetSource() != "tmpfs" || st.GetTarget() != "/run/mnt/data" || st.GetFstype() != "tmpfs" || !strings.Contains(st.GetData(), "size=1024k") {
			t.Errorf("status = %v, want what mountinfo has", st)
		}
		r.Delete("data", &storagepb.MountPoint{})
		if found := mountsAt(t, "/run/mnt/data"); len(found) > 0 {
			t.Errorf("still mounted: %+v", found)
		}
		if r.Get("data", st) != nil {
			t.Error("the status is still there")
		}
	}
}

// TestAFileSystemWaitsForItsModule: what the runtime says of the module is heard, and has the mount tried again.
func TestAFileSystemWaitsForItsModule(t *testing.T) {
	r := node(t)
	start(t, r)
	r.Apply("data", &storagepb.MountPoint{Source: "none", Target: "/run/mnt/data", Fstype: "nofs"})
	waitFor(t, r, "data", reasonMountFailed)
	r.Apply("fs-nofs", &kernelpb.KernelModuleStatus{Reason: "Missing", Message: "the image has none"})
	st := &storagepb.MountPointStatus{}
	r.Wait("the module's message", func() bool {
		return r.Get("data", st) != nil && st.GetMessage() == `the kernel has no file system "nofs": the image has none`
	})
}

func TestBadSourceLeavesNothingHalfMounted(t *testing.T) {
	r := node(t)
	if err := os.WriteFile("/run/image", make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	start(t, r)
	for _, test := range []struct {
		id            string
		spec          *storagepb.MountPoint
		reason, words string
		targetNotMade bool
	}{
		{id: "missing", reason: reasonSourceMissing, words: "/dev/nothing: no such device", targetNotMade: true,
			spec: &storagepb.MountPoint{Source: "/dev/nothing", Target: "/run/mnt/missing", Fstype: "ext4"}},
		{id: "directory", reason: reasonMountFailed, words: "/run is not a block device", targetNotMade: true,
			spec: &storagepb.MountPoint{Source: "/run", Target: "/run/mnt/directory", Fstype: "ext4"}},
		{id: "fstype", reason: reasonMountFailed, words: `the kernel has no file system "nofs" yet`,
			spec: &storagepb.MountPoint{Source: "none", Target: "/run/mnt/fstype", Fstype: "nofs"}},
		{id: "data", reason: reasonMountFailed, words: "invalid argument",
			spec: &storagepb.MountPoint{Source: "tmpfs", Target: "/run/mnt/option", Fstype: "tmpfs", Data: "colour=red"}},
		{id: "flag", reason: reasonMountFailed, words: `"bind" is not a mount flag`, targetNotMade: true,
			spec: &storagepb.MountPoint{Source: "tmpfs", Target: "/run/mnt/flag", Fstype: "tmpfs", Flags: []string{"bind"}}},
		{id: "outside", reason: reasonMountFailed, words: `"/var/../etc" is not a clean path below /var or /run/mnt`,
			spec: &storagepb.MountPoint{Source: "tmpfs", Target: "/var/../etc", Fstype: "tmpfs"}},
	} {
		t.Run(test.id, func(t *testing.T) {
			r.Apply(test.id, test.spec)
			st := waitFor(t, r, test.id, test.reason)
			if !strings.Contains(st.GetMessage(), test.words) {
				t.Errorf("message = %q, want %q", st.GetMessage(), test.words)
			}
			if found := mountsAt(t, filepath.Clean(test.spec.GetTarget())); len(found) > 0 {
				t.Errorf("mounted: %+v", found)
			}
			if _, err := os.Stat(test.spec.GetTarget()); test.targetNotMade && err == nil {
				t.Errorf("%s was made for nothing", test.spec.GetTarget())
			}
			r.Delete(test.id, test.spec)
		})
	}
	// Neither kept the plugin from being ready, nor from mounting what can be.
	r.WaitReady()
	r.Apply("good", tmpfs("/run/mnt/good"))
	waitFor(t, r, "good", reasonMounted)
}

func TestSymbolicLinkInTheTargetIsNotFollowed(t *testing.T) {
	r := node(t)
	for _, dir := range []string{"/run/elsewhere/x", "/run/mnt"} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("/run/elsewhere", "/run/mnt/link"); err != nil {
		t.Fatal(err)
	}
	start(t, r)
	for _, target := range []string{"/run/mnt/link", "/run/mnt/link/x", "/run/mnt/link/new"} {
		r.Apply("data", tmpfs(target))
		st := waitFor(t, r, "data", reasonMountFailed)
		if st.GetMessage() != "target /run/mnt/link: is a symbolic link" {
			t.Errorf("message = %q", st.GetMessage())
		}
	}
	if len(mountsAt(t, "/run/elsewhere")) > 0 || len(mountsAt(t, "/run/elsewhere/x")) > 0 {
		t.Error("mounted through the link")
	}
	if _, err := os.Stat("/run/elsewhere/new"); err == nil {
		t.Error("a directory was made through the link")
	}
}

func TestChangedSpecIsRemountedOrMountedAnew(t *testing.T) {
	r := node(t)
	start(t, r)
	r.Apply("data", tmpfs("/run/mnt/a"))
	waitFor(t, r, "data", reasonMounted)
	if err := os.WriteFile("/run/mnt/a/kept", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	r.Apply("data", tmpfs("/run/mnt/a", "ro"))
	waitFor(t, r, "data", reasonMounted)
	if err := os.WriteFile("/run/mnt/a/new", nil, 0o600); !errors.Is(err, unix.EROFS) {
		t.Errorf("write after ro = %v, want EROFS", err)
	}
	if _, err := os.Stat("/run/mnt/a/kept"); err != nil {
		t.Errorf("the remount lost the content: %v", err)
	}
	r.Apply("data", tmpfs("/run/mnt/b"))
	waitFor(t, r, "data", reasonMounted)
	if len(mountsAt(t, "/run/mnt/a")) != 0 || len(mountsAt(t, "/run/mnt/b")) != 1 {
		t.Error("the mount did not move from a to b")
	}
	r.Apply("data", &storagepb.MountPoint{Source: "other", Target: "/run/mnt/b", Fstype: "tmpfs"})
	waitFor(t, r, "data", reasonMounted)
	if found := mountsAt(t, "/run/mnt/b"); len(found) != 1 || found[0].Source != "other" {
		t.Errorf("mounted = %+v, want the source other alone", found)
	}
}

func TestBusyMountIsUnmountedWhenItIsFree(t *testing.T) {
	r := node(t)
	start(t, r)
	r.Apply("data", tmpfs("/run/mnt/data"))
	waitFor(t, r, "data", reasonMounted)
	file, err := os.Create("/run/mnt/data/open")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	r.Teardown("data", &storagepb.MountPoint{})
	st := waitFor(t, r, "data", reasonTargetBusy)
	if want := "unmount /run/mnt/data: it is in use"; st.GetMessage() != want || st.GetTarget() != "/run/mnt/data" {
		t.Errorf("status = %v, want the message %q and what is still mounted", st, want)
	}
	file.Close()
	r.Wait("it is unmounted and let go of", func() bool {
		return len(r.Get("data", &storagepb.MountPoint{}).GetFinalizers()) == 0 && len(mountsAt(t, "/run/mnt/data")) == 0
	})
}

func TestForeignMountIsLeftAlone(t *testing.T) {
	r := node(t)
	if err := os.MkdirAll("/run/mnt/data", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("foreign", "/run/mnt/data", "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	start(t, r)
	r.Apply("data", tmpfs("/run/mnt/data"))
	st := waitFor(t, r, "data", reasonTargetBusy)
	if want := "foreign (tmpfs) is mounted there by somebody else"; st.GetMessage() != want {
		t.Errorf("message = %q, want %q", st.GetMessage(), want)
	}
	r.Delete("data", &storagepb.MountPoint{})
	if found := mountsAt(t, "/run/mnt/data"); len(found) != 1 || found[0].Source != "foreign" {
		t.Errorf("mounted = %+v, want the foreign one", found)
	}
	r.Apply("data", tmpfs("/run/mnt/data"))
	waitFor(t, r, "data", reasonTargetBusy)
	if err := unix.Unmount("/run/mnt/data", 0); err != nil {
		t.Fatal(err)
	}
	waitFor(t, r, "data", reasonMounted) // woken by the mount table
}

func TestTwoMountPointsWithOneTarget(t *testing.T) {
	r := node(t)
	start(t, r)
	r.Apply("second", tmpfs("/run/mnt/data"))
	waitFor(t, r, "second", reasonMounted)
	r.Apply("first", tmpfs("/run/mnt/data"))
	st := waitFor(t, r, "first", reasonTargetBusy)
	if want := `MountPoint "second" has the same target`; st.GetMessage() != want {
		t.Errorf("message = %q, want %q", st.GetMessage(), want)
	}
	r.Delete("first", &storagepb.MountPoint{})
	if len(mountsAt(t, "/run/mnt/data")) != 1 {
		t.Error("deleting the one that was not mounted unmounted the other")
	}
}

func TestInnerMountWaitsForTheOuter(t *testing.T) {
	r := node(t)
	start(t, r)
	r.Apply("outer", &storagepb.MountPoint{Source: "/dev/nothing", Target: "/run/mnt/a", Fstype: "ext4"})
	r.Apply("inner", tmpfs("/run/mnt/a/b"))
	st := waitFor(t, r, "inner", reasonWaiting)
	if want := `MountPoint "outer" comes first: /run/mnt/a is not mounted`; st.GetMessage() != want {
		t.Errorf("message = %q, want %q", st.GetMessage(), want)
	}
	r.Apply("outer", tmpfs("/run/mnt/a"))
	waitFor(t, r, "outer", reasonMounted)
	waitFor(t, r, "inner", reasonMounted)
	r.Teardown("outer", &storagepb.MountPoint{})
	waitFor(t, r, "outer", reasonTargetBusy)
	r.Delete("inner", &storagepb.MountPoint{})
	r.Delete("outer", &storagepb.MountPoint{})
	if len(mountsAt(t, "/run/mnt/a"))+len(mountsAt(t, "/run/mnt/a/b")) != 0 {
		t.Error("something is still mounted")
	}
}

// TestKilledPluginGoesOn kills the real process, with its filter against execve, and starts it again.
func TestKilledPluginGoesOn(t *testing.T) {
	r := node(t)
	kill := startProcess(t, r)
	r.Apply("kept", tmpfs("/run/mnt/kept"))
	r.Apply("changed", tmpfs("/run/mnt/changed"))
	r.Apply("deleted", tmpfs("/run/mnt/deleted"))
	for _, id := range []string{"kept", "changed", "deleted"} {
		waitFor(t, r, id, reasonMounted)
	}
	if err := os.WriteFile("/run/mnt/kept/file", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	kill()
	r.Wait("the session is over", func() bool { return !r.Status().GetReady() })
	r.Apply("changed", tmpfs("/run/mnt/changed", "ro"))
	r.Teardown("deleted", &storagepb.MountPoint{})
	startProcess(t, r)
	r.Delete("deleted", &storagepb.MountPoint{})
	waitFor(t, r, "kept", reasonMounted)
	waitFor(t, r, "changed", reasonMounted)
	if _, err := os.Stat("/run/mnt/kept/file"); err != nil || len(mountsAt(t, "/run/mnt/kept")) != 1 {
		t.Errorf("kept was not taken over: %v, %+v", err, mountsAt(t, "/run/mnt/kept"))
	}
	if found := mountsAt(t, "/run/mnt/changed"); len(found) != 1 || !slices.Contains(found[0].Flags, "ro") {
		t.Errorf("changed = %+v, want one that is ro", found)
	}
	if len(mountsAt(t, "/run/mnt/deleted")) != 0 {
		t.Error("deleted is still mounted")
	}
}

func TestMountIsTakenOverWhenStoreAndPluginWereLost(t *testing.T) {
	r := node(t)
	stop := start(t, r)
	r.Apply("data", tmpfs("/run/mnt/data"))
	waitFor(t, r, "data", reasonMounted)
	stop()
	r.Stop()
	r.Resume(true)
	start(t, r)
	r.WaitReady()
	if len(mountsAt(t, "/run/mnt/data")) != 1 {
		t.Fatal("a mount that nobody asked to unmount is gone")
	}
	r.Apply("data", tmpfs("/run/mnt/data"))
	waitFor(t, r, "data", reasonMounted)
	if len(mountsAt(t, "/run/mnt/data")) != 1 {
		t.Error("it was mounted twice")
	}
	r.Delete("data", &storagepb.MountPoint{})
	if len(mountsAt(t, "/run/mnt/data")) != 0 {
		t.Error("it is still mounted")
	}
}

func startProcess(t *testing.T, r *plugintest.Runtime) (kill func()) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Stderr = os.Stderr
	cmd.Env = append(os.Environ(), envPlugin+"=yes", fmt.Sprintf("%s=%s", sdk.EnvEndpoint, r.Endpoint))
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	kill = sync.OnceFunc(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	t.Cleanup(kill)
	return kill
}
