package boot

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const mountinfo = `22 1 0:20 / / ro,nosuid shared:1 - erofs /root.erofs ro
23 22 0:21 / /proc rw - proc proc rw
24 22 0:5 / /dev rw - devtmpfs devtmpfs rw
25 24 0:22 / /dev/pts rw - devpts devpts rw
26 22 0:23 / /run rw shared:2 - tmpfs tmpfs rw
27 26 8:1 / /run/with\040space rw shared:3 - ext4 /dev/vda rw
28 22 0:24 / /var rw - tmpfs tmpfs rw
29 28 8:2 / /var/lib/data rw - xfs /dev/vdb rw
broken line
`

func TestMountPointsAreThoseWithData(t *testing.T) {
	got := mountPoints(strings.NewReader(mountinfo))
	if want := []string{"/run", "/run/with space", "/var", "/var/lib/data"}; !slices.Equal(got, want) {
		t.Errorf("mountPoints = %q; want %q", got, want)
	}
}

func FuzzMountPoints(f *testing.F) {
	f.Add(mountinfo)
	f.Add(" - \n1 2 3 4 5 - ")
	f.Fuzz(func(t *testing.T, text string) {
		for _, target := range mountPoints(strings.NewReader(text)) {
			if target == "/" || target == "" {
				t.Errorf("%q of %q", target, text)
			}
		}
	})
}

// mayNotMount skips the test where only the right to mount is missing.
func mayNotMount(t *testing.T, err error) {
	t.Helper()
	if errors.Is(err, unix.EPERM) {
		t.Skip("mounting is not permitted here")
	}
	t.Fatal(err)
}

// TestEtcIsSeenThroughTheTmpfs mounts for real, in a mount namespace's worth of a temporary directory.
func TestEtcIsSeenThroughTheTmpfs(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"ssl/certs/ca.crt": "cert", "hosts": "1.2.3.4 mine\n"} {
		path := filepath.Join(dir, name)
		os.MkdirAll(filepath.Dir(path), 0o755)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("hosts", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	all := keepEtc(dir)
	if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NODEV, ""); err != nil {
		mayNotMount(t, err)
	}
	t.Cleanup(func() {
		unix.Unmount(filepath.Join(dir, "ssl"), 0)
		unix.Unmount(dir, 0)
	})
	if err := restoreEtc(dir, all); err != nil {
		t.Fatal(err)
	}
	if err := fillEtc(dir); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"ssl/certs/ca.crt": "cert", "hosts": "1.2.3.4 mine\n", "link": "1.2.3.4 mine\n", "nsswitch.conf": "hosts: files dns\n"} {
		if got, err := os.ReadFile(filepath.Join(dir, name)); string(got) != want {
			t.Errorf("%s: %q, %v; want %q", name, got, err, want)
		}
	}
	if got, _ := os.Readlink(filepath.Join(dir, "resolv.conf")); got != "/run/cosi/network/resolv.conf" {
		t.Errorf("resolv.conf -> %q", got)
	}
}

func TestFreeEmptiesADirectoryButNoOtherFileSystem(t *testing.T) {
	dir := t.TempDir()
	other := filepath.Join(dir, "mounted")
	for _, path := range []string{other, filepath.Join(dir, "a/b/c")} {
		if err := os.MkdirAll(path, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Mount("tmpfs", other, "tmpfs", 0, ""); err != nil {
		mayNotMount(t, err)
	}
	t.Cleanup(func() { unix.Unmount(other, 0) })
	if err := os.WriteFile(filepath.Join(other, "file"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	free(dir)
	entries, _ := os.ReadDir(dir)
	if _, err := os.Stat(filepath.Join(other, "file")); err != nil || len(entries) != 1 {
		t.Errorf("left: %v; the other file system: %v", entries, err)
	}
}

func TestTheClockIsNotMovedBack(t *testing.T) {
	if moved, err := ClockFloor(time.Now().Add(-time.Hour)); moved || err != nil {
		t.Errorf("ClockFloor of an hour ago = %v, %v", moved, err)
	}
	if moved, err := ClockFloor(time.Time{}); moved || err != nil {
		t.Errorf("ClockFloor of an unknown time = %v, %v", moved, err)
	}
}
