package build

import (
	"slices"
	"testing"
)

// A kernel that mounts a file itself is spared the modules of a loop device: each costs a boot.
func TestOnlyOldKernelsNeedALoopDevice(t *testing.T) {
	for release, want := range map[string]bool{
		"5.10.0-30-cloud-amd64": true, "6.1.0-50-amd64": true, "6.11.2": true, "6.12.107+deb13-cloud-amd64": false, "7.3.4+deb13-cloud-amd64": false, "own": false,
	} {
		if got := rootModules(release); slices.Contains(got, "loop") != want || !slices.Contains(got, "erofs") {
			t.Errorf("rootModules(%q) = %q; want erofs, and a loop device: %v", release, got, want)
		}
	}
}
