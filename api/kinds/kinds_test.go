package kinds_test

import (
	"errors"
	"strings"
	"testing"

	metapb "github.com/cosi-os/cosi/api/cosi/resource/meta"
	"github.com/cosi-os/cosi/api/kinds"
	"github.com/cosi-os/cosi/api/kinds/builtin"
)

func TestLookupFindsAKindByEveryName(t *testing.T) {
	set := builtin.Set()
	for _, name := range []string{
		"MountPoints.storage.cosi.dev", "mountpoints.storage.cosi.dev", "MountPoints", "mountpoint", "MountPoint", "mount", "MOUNTS",
	} {
		k, err := set.Lookup(name)
		if err != nil || k.Type() != "MountPoints.storage.cosi.dev" {
			t.Errorf("Lookup(%q) = %v, %v", name, k, err)
		}
	}
	for name, want := range map[string]string{
		"addresses": "Addresses.network.cosi.dev", "address": "Addresses.network.cosi.dev", "machinestatus": "MachineStatuses.machine.cosi.dev",
		"certificate": "Certificates.machine.cosi.dev", "log": "Logs.service.cosi.dev", "namespaces": "Namespaces.meta.cosi.dev",
	} {
		if k, err := set.Lookup(name); err != nil || k.Type() != want {
			t.Errorf("Lookup(%q) = %v, %v; want %s", name, k, err, want)
		}
	}
}

func TestLookupNamesTheNearest(t *testing.T) {
	_, err := builtin.Set().Lookup("MuontPoint")
	if !errors.Is(err, kinds.ErrUnknown) || !strings.Contains(err.Error(), "did you mean mountpoints?") {
		t.Errorf("Lookup(MuontPoint): %v", err)
	}
	if _, err := builtin.Set().Lookup("zebra"); err == nil || strings.Contains(err.Error(), "did you mean") {
		t.Errorf("Lookup(zebra): %v", err)
	}
}

func TestTwoKindsMayNotClaimOneName(t *testing.T) {
	mount := kind(t, "mount")
	other, err := kinds.New(&metapb.ResourceDefinitionSpec{ResourceType: "Mounts.example.com", DefaultNamespace: "config"}, mount.Message)
	if err != nil {
		t.Fatal(err)
	}
	set := builtin.Set()
	before := len(set.All())
	if err := set.Add(other); err == nil || !strings.Contains(err.Error(), `"mount`) {
		t.Errorf("Add: %v", err)
	}
	if len(set.All()) != before || set.ByType("Mounts.example.com") != nil {
		t.Error("a refused kind was added in part")
	}
}

func TestNewRefusesWhatIsNoKind(t *testing.T) {
	message := kind(t, "mount").Message
	for _, d := range []*metapb.ResourceDefinitionSpec{
		{ResourceType: "mounts", DefaultNamespace: "config"},
		{ResourceType: "Mounts.example.com"},
		{ResourceType: "Mounts.example.com", DefaultNamespace: "config", Message: "other.Message"},
		{ResourceType: "Mounts.-.com", DefaultNamespace: "config"},
	} {
		if k, err := kinds.New(d, message); err == nil {
			t.Errorf("New(%v) = %v", d, k)
		}
	}
}
