package node

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/cosi-os/cosi/api/volume"
)

// A state that is not sealed says why: a TPM that the kernel cannot use is not none.
func TestWhatSealingLacks(t *testing.T) {
	root := t.TempDir()
	add := func(path string) {
		t.Helper()
		path = filepath.Join(root, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, step := range []struct{ add, want string }{
		{"/proc/cmdline", "the image has no pcr_policy"},
		{filepath.Join(volume.BootDir, volume.PublicKey), "the image has no pcr_policy"},
		{filepath.Join(volume.BootDir, volume.Signatures), "there is no TPM 2.0"},
		{acpiTPM, "the firmware lists a TPM 2.0, and the kernel has not started it"},
		{tpm, ""},
	} {
		add(step.add)
		if got := missing(root); got != step.want {
			t.Errorf("with %s: %q; want %q", step.add, got, step.want)
		}
	}
}
