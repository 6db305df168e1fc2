package userdata

import (
	"os"
	"strings"
	"testing"

	machinepb "github.com/cosi-os/cosi/api/cosi/machine/v1alpha1"
	networkpb "github.com/cosi-os/cosi/api/cosi/network/v1alpha1"
	storagepb "github.com/cosi-os/cosi/api/cosi/storage/v1alpha1"
	"github.com/cosi-os/cosi/engine/runtime/plugintest"
	"github.com/cosi-os/cosi/engine/runtime/state"
	"github.com/diskfs/go-diskfs/disk"
	"github.com/diskfs/go-diskfs/filesystem"
)

// reboot forgets what a reboot forgets on a node with a disk of its own: the statuses.
func reboot(t *testing.T, r *plugintest.Runtime) {
	t.Helper()
	kind := state.Kind{Namespace: "status", Type: kindSource}
	all, err := r.Store.List(t.Context(), kind, state.Query{})
	if err != nil {
		t.Fatal(err)
	}
	for _, listed := range all {
		s := listed.Message()
		o := state.WriteOptions{Owner: s.GetMetadata().GetOwner()}
		if err := r.Store.Destroy(t.Context(), state.PointerTo(s), o); err != nil {
			t.Fatal(err)
		}
	}
}

const twoMounts = `metadata: {type: mount, id: kept}
spec: {source: tmpfs, target: /var/old, fstype: tmpfs}
---
metadata: {type: mount, id: deleted}
spec: {source: tmpfs, target: /var/other, fstype: tmpfs}
`

func TestARebootDoesNotUndoWhatWasDeletedOverTheAPI(t *testing.T) {
	r, root := plugintest.Start(t, declaration), t.TempDir()
	put(t, root, fwCfgFile, twoMounts)
	stop := run(t, r, root)
	stop()
	r.Delete("deleted", &storagepb.MountPoint{})
	reboot(t, r)

	run(t, r, root)()
	if r.Get("deleted", &storagepb.MountPoint{}) != nil {
		t.Error("a resource that was deleted over the API came back with the same user data")
	}
	if s := source(r, sourceFwCfg); s.State != stateApplied || s.Applied != 2 {
		t.Errorf("source = %v; want what the record says", s)
	}
	reboot(t, r)

	put(t, root, fwCfgFile, strings.Replace(twoMounts, "/var/old", "/var/new", 1))
	run(t, r, root)
	kept := &storagepb.MountPoint{}
	if r.Get("kept", kept); kept.Target != "/var/new" || r.Get("deleted", &storagepb.MountPoint{}) != nil {
		t.Errorf("target = %s; want the new one, and the deleted resource still gone", kept.Target)
	}
	if p := source(r, sourceFwCfg).Problems; len(p) != 1 || !strings.Contains(p[0].Message, "deleted over the API") {
		t.Errorf("problems = %v; want the conflict", p)
	}
}

func TestWhatAnInterruptedBootHasWrittenIsNotWrittenAgain(t *testing.T) {
	r, root := plugintest.Start(t, declaration), t.TempDir()
	put(t, root, fwCfgFile, twoMounts)
	run(t, r, root)()
	// The record is written last: without it, the boot was interrupted before the end.
	record := &machinepb.UserDataRecord{}
	m := r.Get(sourceFwCfg, record)
	if m == nil || len(record.Resources) != 2 {
		t.Fatalf("record = %v, want one with two resources", record)
	}
	if err := r.Store.Destroy(t.Context(), state.Pointer{Kind: state.Kind{Namespace: m.Namespace, Type: m.Type}, ID: m.Id}, state.WriteOptions{Owner: m.Owner}); err != nil {
		t.Fatal(err)
	}
	r.Delete("deleted", &storagepb.MountPoint{})
	reboot(t, r)

	run(t, r, root)
	if version := r.Get("kept", &storagepb.MountPoint{}).Version; version != "1" {
		t.Errorf("kept is at version %s; want 1", version)
	}
	if r.Get("deleted", &storagepb.MountPoint{}) == nil {
		t.Error("a resource that had not been written is not there")
	}
	if s := source(r, sourceFwCfg); s.State != stateApplied || s.Applied != 2 {
		t.Errorf("source = %v; want both applied", s)
	}
}

func TestOneSourceDescribesAResourceOnce(t *testing.T) {
	r, root := plugintest.Start(t, declaration), t.TempDir()
	put(t, root, fwCfgFile, twoMounts+"---\nmetadata: {type: mount, id: kept}\nspec: {source: tmpfs, target: /var/second, fstype: tmpfs}\n")
	run(t, r, root)
	kept := &storagepb.MountPoint{}
	if r.Get("kept", kept); kept.Target != "/var/old" {
		t.Errorf("target = %s; want the first document's", kept.Target)
	}
	if p := source(r, sourceFwCfg).Problems; len(p) != 1 || p[0].Document != 3 || !strings.Contains(p[0].Message, "earlier document") {
		t.Errorf("problems = %v; want one with the third document", p)
	}
}

func TestNetworkDescribedAtALaterBootTakesTheDefaultAway(t *testing.T) {
	r, root := plugintest.Start(t, declaration), t.TempDir()
	put(t, root, defaultsFile, defaults)
	run(t, r, root)()
	if r.Get("default", &networkpb.DHCPClient{}) == nil {
		t.Fatal("no default")
	}
	reboot(t, r)
	put(t, root, fwCfgFile, "metadata: {type: addr, id: a}\nspec: {link: {name: eth0}, address: 192.0.2.1/24}\n")
	stop := run(t, r, root)
	if m := r.Get("default", &networkpb.DHCPClient{}); m != nil {
		t.Errorf("DHCPClient default = %v; want none", m)
	}
	stop()
	reboot(t, r)
	put(t, root, defaultsFile, defaults+"# of a newer image\n")
	run(t, r, root)
	if m := r.Get("default", &networkpb.DHCPClient{}); m != nil {
		t.Errorf("DHCPClient default = %v with a newer image; want none", m)
	}
}

// TestDefaultsGoWithTheirImage: those of a version that was left again, but not what somebody has changed since.
func TestDefaultsGoWithTheirImage(t *testing.T) {
	r, root := plugintest.Start(t, declaration), t.TempDir()
	image := func(text string) {
		t.Helper()
		put(t, root, defaultsFile, text)
		run(t, r, root)()
		reboot(t, r)
	}
	image(defaults)
	image(defaults + "---\n" + twoMounts + "---\nmetadata: {type: nonsense, id: a}\nspec: {}\n")
	change(t, r, "deleted", &storagepb.MountPoint{Source: "tmpfs", Target: "/var/mine", Fstype: "tmpfs"})
	image(defaults)
	if r.Get("default", &networkpb.DHCPClient{}) == nil {
		t.Error("a default that the image has is gone")
	}
	if r.Get("kept", &storagepb.MountPoint{}) != nil {
		t.Error("a default of the version before is still there")
	}
	changed := &storagepb.MountPoint{}
	if r.Get("deleted", changed); changed.GetTarget() != "/var/mine" {
		t.Errorf("what somebody has changed is %v", changed)
	}
	image(defaults + "---\n" + twoMounts)
	if r.Get("kept", &storagepb.MountPoint{}) == nil {
		t.Error("the default is not there again")
	}
}

const trustOnESP = `metadata: {type: cert, id: node}
spec: {client_cas: [anchor]}
---
metadata: {type: mount, id: a}
spec: {source: tmpfs, target: /var/old, fstype: tmpfs}
`

func TestTheESPIsReadUntilTheNodeHasATrustAnchor(t *testing.T) {
	r, root := plugintest.Start(t, declaration), t.TempDir()
	esp := func(device, content string) {
		makeDevice(t, root, device, 40<<20, disk.FilesystemSpec{FSType: filesystem.TypeFat32, VolumeLabel: "ESP"}, map[string]string{"EFI/x": "", espFile: content})
	}
	esp("vda2", trustOnESP)
	run(t, r, root)()
	if s := source(r, "esp-vda2"); s.State != stateApplied || s.Applied != 2 {
		t.Fatalf("source = %v; want both applied", s)
	}
	reboot(t, r)
	if err := os.Remove(root + "/dev/vda2"); err != nil {
		t.Fatal(err)
	}
	esp("vda2", strings.Replace(trustOnESP, "/var/old", "/var/new", 1))
	esp("vdb2", strings.Replace(trustOnESP, "/var/old", "/var/newest", 1))
	run(t, r, root)
	mount := &storagepb.MountPoint{}
	if r.Get("a", mount); mount.Target != "/var/old" {
		t.Errorf("target = %s; want the first", mount.Target)
	}
	if s := source(r, "esp-vda2"); s.State != stateApplied || s.Time == nil {
		t.Errorf("the first ESP is %v; want what the record says", s)
	}
	if s := source(r, "esp-vdb2"); s.State != stateRefused || !strings.Contains(s.Message, "trust anchor") {
		t.Errorf("another ESP is %v; want it refused", s)
	}
}

func TestAnInterruptedESPIsReadToItsEnd(t *testing.T) {
	r, root := plugintest.Start(t, declaration), t.TempDir()
	makeDevice(t, root, "vda2", 40<<20, disk.FilesystemSpec{FSType: filesystem.TypeFat32, VolumeLabel: "ESP"}, map[string]string{"EFI/x": "", espFile: trustOnESP})
	run(t, r, root)()
	m := r.Get("esp-vda2", &machinepb.UserDataRecord{})
	if err := r.Store.Destroy(t.Context(), state.Pointer{Kind: state.Kind{Namespace: m.Namespace, Type: m.Type}, ID: m.Id}, state.WriteOptions{Owner: m.Owner}); err != nil {
		t.Fatal(err)
	}
	r.Delete("a", &storagepb.MountPoint{})
	reboot(t, r)
	run(t, r, root)
	if r.Get("a", &storagepb.MountPoint{}) == nil {
		t.Error("the rest of the ESP's documents was not applied")
	}
}
