package marker

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	storagepb "github.com/cosi-os/cosi/api/cosi/storage/v1alpha1"
	"github.com/cosi-os/cosi/engine/runtime/plugintest"
	"github.com/cosi-os/cosi/plugins/mount"
	"github.com/cosi-os/cosi/sdk"
)

const (
	envNamespace = "COSI_TEST_NAMESPACE"
	refused      = "refused"
)

// TestMain runs the tests in a mount namespace of their own.
func TestMain(m *testing.M) {
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

func mountTmpfs(t *testing.T, target string) {
	t.Helper()
	if os.Getenv(envNamespace) == refused {
		t.Skip("the kernel refuses a mount namespace of its own: unshare(CLONE_NEWNS) is not permitted")
	}
	if err := unix.Mount("tmpfs", target, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(target, unix.MNT_DETACH) })
}

func TestMarkGoesIntoTheMountAndNowhereElse(t *testing.T) {
	target := filepath.Join(t.TempDir(), "data")
	if err := os.Mkdir(target, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := mark(target, "data 1\n"); !errors.Is(err, errNotMounted) {
		t.Errorf("mark without a mount = %v, want errNotMounted", err)
	}
	if _, err := os.Stat(filepath.Join(target, File)); err == nil {
		t.Error("the marker was written below the target")
	}
	mountTmpfs(t, target)
	for _, text := range []string{"data 1\n", "data 1\n", "data 2\n"} {
		if err := mark(target, text); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(filepath.Join(target, File)); err != nil || string(got) != text {
			t.Errorf("marker = %q, %v; want %q", got, err, text)
		}
	}
}

func TestMarkFollowsNoLinkOutOfTheFileSystem(t *testing.T) {
	dir := t.TempDir()
	target := filepath.Join(dir, "data")
	if err := os.Mkdir(target, 0o755); err != nil {
		t.Fatal(err)
	}
	mountTmpfs(t, target)
	if err := os.Symlink(filepath.Join(dir, "outside"), filepath.Join(target, File)); err != nil {
		t.Fatal(err)
	}
	if err := mark(target, "data 1\n"); err == nil {
		t.Error("a link out of the file system was followed")
	}
	if _, err := os.Stat(filepath.Join(dir, "outside")); err == nil {
		t.Error("the file behind the link was written")
	}
}

func start(t *testing.T, r *plugintest.Runtime, p sdk.Plugin) {
	t.Helper()
	t.Setenv(sdk.EnvEndpoint, r.Endpoint)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); _ = sdk.Run(ctx, p) }()
	t.Cleanup(func() { cancel(); <-done })
	r.WaitReady()
}

// TestDemo is the demo: two plugins that know of each other by a kind only.
func TestDemo(t *testing.T) {
	mountTmpfs(t, "/run")
	runtime := plugintest.Start(t, mount.Plugin().Declaration)
	second := plugintest.Join(t, runtime, declared)
	start(t, runtime, mount.Plugin())
	start(t, second, Plugin())
	const file = "/run/mnt/data/" + File
	for range 2 {
		runtime.Apply("data", &storagepb.MountPoint{Source: "tmpfs", Target: "/run/mnt/data", Fstype: "tmpfs"})
		runtime.Wait("the marker is written", func() bool {
			text, err := os.ReadFile(file)
			return err == nil && strings.HasPrefix(string(text), "data ")
		})
		runtime.Delete("data", &storagepb.MountPoint{})
		if _, err := os.Stat(file); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("after the unmount there is a marker below the target: %v", err)
		}
	}
}
