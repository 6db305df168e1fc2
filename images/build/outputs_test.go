package build

import (
	"strings"
	"testing"
)

// A kernel that mounts a file itself is spared the modules of a loop device: each costs a boot. One that has no module of a name is not asked
// for it.
func TestWhatMountingTheRootTakes(t *testing.T) {
	for release, want := range map[string]string{
		"5.10.0-30-cloud-amd64": "crc32c_generic erofs loop", "6.1.0-50-amd64": "crc32c_generic erofs loop", "6.11.2": "crc32c_generic erofs loop",
		"6.12.107+deb13-amd64": "crc32c_generic erofs", "6.12.107+deb13-cloud-amd64": "crc32c_generic erofs", "7.3.4+deb13-cloud-amd64": "erofs", "own": "erofs",
	} {
		if got := strings.Join(rootModules(release), " "); got != want {
			t.Errorf("rootModules(%q) = %s; want %s", release, got, want)
		}
	}
}
