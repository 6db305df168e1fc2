package powerevents

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/cosi-os/cosi/plugins/internal/doorbell"
)

// zone makes a thermal zone with a passive, a hot and a critical trip.
func (k *kernel) zone(number, device, temperature string) {
	k.t.Helper()
	dir := filepath.Join(k.sys, "class", "thermal", "thermal_zone"+number)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		k.t.Fatal(err)
	}
	if device != "" {
		if err := os.Symlink("../../../LNXSYSTM:00/"+device, filepath.Join(dir, "device")); err != nil {
			k.t.Fatal(err)
		}
	}
	for file, text := range map[string]string{
		"type": "zone" + number, "temp": temperature, "trip_point_0_type": "critical", "trip_point_0_temp": "105000", "trip_point_1_type": "hot",
		"trip_point_1_temp": "90000", "trip_point_2_type": "passive", "trip_point_2_temp": "70000", "trip_point_3_type": "hot", "trip_point_3_temp": "-274000",
	} {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(text+"\n"), 0o600); err != nil {
			k.t.Fatal(err)
		}
	}
}

func TestZones(t *testing.T) {
	k := newKernel(t)
	k.zone("0", "LNXTHERM:00", "89999")
	k.zone("1", "LNXTHERM:01", "90000")
	k.zone("2", "", "105000")
	k.zone("3", "", "-5000")
	want := []zone{{"zone0", "LNXTHERM:00", 0}, {"zone1", "LNXTHERM:01", hot}, {"zone2", "", tooHot}, {"zone3", "", 0}}
	if got := zones(k.sys); !slices.Equal(got, want) {
		t.Errorf("zones = %+v; want %+v", got, want)
	}
	g := newGenerator(&doorbell.Bell[note]{}, k.sys)
	now := moment{boottime: time.Minute}
	heard := []note{{1, hot, "LNXTHERM:01"}, {2, powerButton, "LNXTHERM:00"}, {3, tooHot, "zone2"}}
	named := []note{{1, hot, "zone1"}, {2, powerButton, "LNXTHERM:00"}, {3, tooHot, "zone2"}}
	if got := g.heat(slices.Clone(heard), false, now); !slices.Equal(got, named) {
		t.Errorf("heat = %+v; want %+v", got, named)
	}
	named = append(named, note{time.Minute, hot, "zone1"}, note{time.Minute, tooHot, "zone2"})
	if got := g.heat(heard, true, now); !slices.Equal(got, named) {
		t.Errorf("heat, behind = %+v; want %+v", got, named)
	}
}
