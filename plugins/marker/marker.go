// Package marker is a plugin that writes a file into every file system that a MountPoint brought: the second half of the demo, in
// which one plugin acts on what another one has observed. It knows nothing of mounting.
package marker

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io/fs"
	"log"
	"os"
	"path/filepath"
	"syscall"

	storagepb "github.com/cosi-os/cosi/api/cosi/storage/v1alpha1"
	"github.com/cosi-os/cosi/sdk"
)

const statusType = "MountPointStatuses.storage.cosi.dev"

// File is written into the root of each file system. It holds the MountPoint's id and version: "data 2\n".
const File = "cosi-marker"

// Version is the plugin's version.
const Version = "0.1.0"

//go:embed plugin.json
var declared []byte

// Plugin returns the plugin.
func Plugin() sdk.Plugin {
	return sdk.Plugin{
		Declaration: declared,
		Version:     Version,
		Controllers: []sdk.Controller{{Name: "markers", Inputs: []string{statusType}, Reconcile: reconcile}},
	}
}

// reconcile marks what is ready. What is gone took its marker with it.
func reconcile(_ context.Context, s *sdk.State) error {
	var errs []error
	for _, st := range sdk.List[*storagepb.MountPointStatus](s, statusType) {
		if !st.Spec.GetReady() || st.TearingDown() {
			continue
		}
		text := fmt.Sprintf("%s %s\n", st.GetId(), st.Spec.GetObservedVersion())
		if err := mark(st.Spec.GetTarget(), text); err != nil {
			errs = append(errs, fmt.Errorf("mark %q: %w", st.GetId(), err))
		}
	}
	return errors.Join(errs...)
}

var errNotMounted = errors.New("nothing is mounted there any more")

// mark writes text into the marker of the file system that is mounted at target, and nowhere else.
func mark(target, text string) error {
	root, err := os.OpenRoot(target)
	if err != nil {
		return err
	}
	defer root.Close()
	inside, err := root.Stat(".")
	if err != nil {
		return err
	}
	outside, err := os.Stat(filepath.Dir(target))
	if err != nil {
		return err
	}
	// The status may be older than an unmount.
	if device(inside) == device(outside) {
		return fmt.Errorf("%s: %w", target, errNotMounted)
	}
	if old, err := root.ReadFile(File); err == nil && string(old) == text {
		return nil
	}
	if err := write(root, text); err != nil {
		return err
	}
	log.Printf("wrote %s", filepath.Join(target, File))
	return nil
}

func write(root *os.Root, text string) error {
	file, err := root.OpenFile(File, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	_, err = file.WriteString(text)
	return errors.Join(err, file.Sync(), file.Close())
}

func device(info fs.FileInfo) uint64 { return info.Sys().(*syscall.Stat_t).Dev }
