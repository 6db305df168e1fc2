package mount

import (
	"testing"

	storagepb "github.com/cosi-os/cosi/api/cosi/storage/v1alpha1"
	"github.com/cosi-os/cosi/plugins/internal/mountinfo"
)

func TestDataLeavesOutWhatFlagsSay(t *testing.T) {
	for options, want := range map[string]string{"rw": "", "ro": "", "rw,size=64k": "size=64k", "size=64k": "size=64k", "rwx=1": "rwx=1"} {
		if got := dataOf(mountinfo.Mount{Options: options}); got != want {
			t.Errorf("dataOf(%q) = %q; want %q", options, got, want)
		}
	}
}

func TestTmpfsBelongsToRoot(t *testing.T) {
	for _, c := range []struct{ fstype, data, want string }{
		{"tmpfs", "", "uid=0,gid=0"},
		{"tmpfs", "size=1m", "size=1m,uid=0,gid=0"},
		{"tmpfs", "uid=7,size=1m", "uid=7,size=1m,gid=0"},
		{"tmpfs", "size=1m,gid=7,uid=7", "size=1m,gid=7,uid=7"},
		{"ext4", "", ""},
	} {
		if got := rootOwned(&storagepb.MountPoint{Fstype: c.fstype, Data: c.data}); got != c.want {
			t.Errorf("rootOwned(%s %q) = %q; want %q", c.fstype, c.data, got, c.want)
		}
	}
}
