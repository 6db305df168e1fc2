package mount

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"testing"

	"golang.org/x/sys/unix"

	storagepb "github.com/cosi-os/cosi/api/cosi/storage/v1alpha1"
)

// TestDeviceThatComesLateIsMounted also shows that a device is known by its number, whatever its node is called.
func TestDeviceThatComesLateIsMounted(t *testing.T) {
	r := node(t)
	start(t, r)
	want := &storagepb.MountPoint{Source: "/run/late", Target: "/run/mnt/data", Fstype: "ext4"}
	r.Apply("data", want)
	waitFor(t, r, "data", reasonSourceMissing)

	image := ext4(t)
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	needLoop(t, err)
	defer control.Close()
	number, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
	needLoop(t, err)
	loop, err := os.OpenFile(fmt.Sprintf("/dev/loop%d", number), os.O_RDWR, 0)
	needLoop(t, err)
	defer loop.Close()
	if err := unix.Mknod("/run/late", unix.S_IFBLK|0o600, int(unix.Mkdev(7, uint32(number)))); err != nil {
		t.Fatal(err)
	}
	// The uevent of this is what wakes the plugin.
	if err := unix.IoctlSetInt(int(loop.Fd()), unix.LOOP_SET_FD, int(image.Fd())); err != nil {
		t.Fatal(err)
	}
	defer unix.IoctlSetInt(int(loop.Fd()), unix.LOOP_CLR_FD, 0)
	st := waitFor(t, r, "data", reasonMounted)
	if st.GetFstype() != "ext4" || st.GetSource() != "/run/late" {
		t.Errorf("status = %v", st)
	}

	if err := os.Rename("/run/late", "/run/other"); err != nil {
		t.Fatal(err)
	}
	r.Apply("data", &storagepb.MountPoint{Source: "/run/other", Target: "/run/mnt/data", Fstype: "ext4"})
	waitFor(t, r, "data", reasonMounted)
	if found := mountsAt(t, "/run/mnt/data"); len(found) != 1 || found[0].Source != "/run/late" {
		t.Errorf("mounted = %+v, want the first mount still", found)
	}
	r.Delete("data", want)
}

// A volume's device has its name only after the kernel has told of it: that the volume is open is what wakes the plugin.
func TestAVolumeThatOpensLateIsMounted(t *testing.T) {
	r := node(t)
	start(t, r)
	image := ext4(t)
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	needLoop(t, err)
	defer control.Close()
	number, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
	needLoop(t, err)
	loop, err := os.OpenFile(fmt.Sprintf("/dev/loop%d", number), os.O_RDWR, 0)
	needLoop(t, err)
	defer loop.Close()
	if err := unix.IoctlSetInt(int(loop.Fd()), unix.LOOP_SET_FD, int(image.Fd())); err != nil {
		t.Fatal(err)
	}
	defer unix.IoctlSetInt(int(loop.Fd()), unix.LOOP_CLR_FD, 0)
	want := &storagepb.MountPoint{Source: "/run/volume", Target: "/run/mnt/data", Fstype: "ext4"}
	r.Apply("data", want)
	waitFor(t, r, "data", reasonSourceMissing)
	if err := os.Symlink(loop.Name(), "/run/volume"); err != nil {
		t.Fatal(err)
	}
	r.Apply("data", &storagepb.VolumeStatus{Ready: true, Device: "/run/volume"})
	waitFor(t, r, "data", reasonMounted)
	r.Delete("data", want)
}

// needLoop skips the test where there is no loop device or no right to it; hack/vmtest mounts disks that come late as well.
func needLoop(t *testing.T, err error) {
	t.Helper()
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
		t.Skipf("no loop device for this test: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func ext4(t *testing.T) *os.File {
	t.Helper()
	image, err := os.Create("/run/image")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { image.Close() })
	if err := image.Truncate(4 << 20); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mkfs.ext4", "-q", "/run/image").CombinedOutput(); err != nil {
		t.Fatalf("mkfs.ext4 (hack/setup installs it): %v %s", err, out)
	}
	return image
}
