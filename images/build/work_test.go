package build

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// What a build leaves that was killed is as large as an image.
func TestWhatAKilledBuildHasLeftIsRemoved(t *testing.T) {
	o := fixture(t)
	left, busy := filepath.Join(o.Output, ".work-left"), filepath.Join(o.Output, ".work-busy")
	for _, dir := range []string{left, busy} {
		writeFile(t, filepath.Join(dir, "cosi-dev-amd64.raw"), []byte("half"))
	}
	release, err := alone(busy)
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	if _, err := Run(context.Background(), o, o.definition()); err != nil {
		t.Fatal(err)
	}
	all, err := filepath.Glob(filepath.Join(o.Output, ".work-*"))
	if err != nil || len(all) != 1 || all[0] != busy {
		t.Errorf("there are %q, %v; want only the other build's, %s", all, err, busy)
	}
}

func TestABuildThatIsInterruptedStops(t *testing.T) {
	for _, at := range []string{"kernel", "programs", "root.erofs", "initramfs", "raw", "qcow2", "iso"} {
		t.Run(at, func(t *testing.T) {
			o := fixture(t)
			ctx, cancel := context.WithCancel(context.Background())
			o.Phase = func(name string) func(string) {
				if name == at {
					cancel()
				}
				return func(string) {}
			}
			if _, err := Run(ctx, o, o.definition()); !errors.Is(err, context.Canceled) {
				t.Errorf("Run = %v; want %v", err, context.Canceled)
			}
			if left, err := os.ReadDir(o.Output); len(left) > 0 || err != nil && !errors.Is(err, os.ErrNotExist) {
				t.Errorf("%v are left, %v", left, err)
			}
		})
	}
}
