package userdata

import (
	"strings"
	"testing"

	storagepb "github.com/cosi-os/cosi/api/cosi/storage/v1alpha1"
	"github.com/cosi-os/cosi/engine/runtime/plugintest"
	"github.com/diskfs/go-diskfs/disk"
	"github.com/diskfs/go-diskfs/filesystem"
)

// TestDisksUnderSecureBoot: whoever comes to the machine can bring any of these, so the definition has to say that they count.
func TestDisksUnderSecureBoot(t *testing.T) {
	sources := []struct {
		source, device, label string
		files                 map[string]string
	}{
		{sourceCIDATA, "vdb", "CIDATA", map[string]string{cidataFile: ""}},
		{sourceConfigDrive, "vdc", "config-2", map[string]string{configDriveFile: ""}},
		{sourceESP, "vda2", "ESP", map[string]string{"EFI/x": "", espFile: ""}},
	}
	for name, c := range map[string]struct {
		mode  byte
		image string // image.json
		state string
	}{
		"enabled":                       {secureBootEnabled, "{}", stateRefused},
		"enabled, and the image allows": {secureBootEnabled, allowsDisks, stateApplied},
		"disabled":                      {secureBootDisabled, "{}", stateApplied},
	} {
		t.Run(name, func(t *testing.T) {
			r, root := plugintest.Start(t, declaration), t.TempDir()
			put(t, root, efiDir+"/x", "")
			put(t, root, bootParams, params(c.mode))
			put(t, root, "usr/lib/cosi/image.json", c.image)
			put(t, root, fwCfgFile, strings.Replace(document1, "id: data", "id: "+sourceFwCfg, 1)) // the host's, which is another matter
			for _, s := range sources {
				files := map[string]string{}
				for name := range s.files {
					files[name] = strings.Replace(document1, "id: data", "id: "+s.source, 1)
				}
				makeDevice(t, root, s.device, 40<<20, disk.FilesystemSpec{FSType: filesystem.TypeFat32, VolumeLabel: s.label}, files)
			}
			makeDevice(t, root, "vdd", 40<<20, disk.FilesystemSpec{FSType: filesystem.TypeFat32, VolumeLabel: "CIDATA"}, nil)
			run(t, r, root)
			for _, s := range sources {
				got, there := source(r, s.source+"-"+s.device), r.Get(s.source, &storagepb.MountPoint{}) != nil
				if got.State != c.state || there != (c.state == stateApplied) || strings.Contains(got.Message, allowsDisksField) != (c.state == stateRefused) {
					t.Errorf("%s is %v, its document there: %v; want it %s", s.source, got, there, c.state)
				}
			}
			if got := source(r, "cidata-vdd"); got.State != stateAbsent {
				t.Errorf("a disk without user data is %v; want it %s", got, stateAbsent)
			}
			if r.Get(sourceFwCfg, &storagepb.MountPoint{}) == nil {
				t.Errorf("what the host says is %v", source(r, sourceFwCfg))
			}
		})
	}
}
