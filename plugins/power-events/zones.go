package powerevents

import (
	"os"
	"path/filepath"
	"strings"

	"github.com/cosi-os/cosi/plugins/internal/sysfs"
)

// zone is a thermal zone.
type zone struct {
	name   string // "acpitz"; several may have the same
	device string // what ACPI calls it, "LNXTHERM:00", if it is of ACPI
	heat   what   // hot or tooHot, or 0
}

// zones are all thermal zones below sys.
func zones(sys string) []zone {
	dirs, _ := filepath.Glob(filepath.Join(sys, "class", "thermal", "thermal_zone*")) // the pattern is well-formed
	var all []zone
	for _, dir := range dirs {
		a := sysfs.Attributes{Dir: dir}
		z := zone{name: a.Text("type"), heat: heat(a)}
		if device, err := os.Readlink(filepath.Join(dir, "device")); err == nil {
			z.device = filepath.Base(device)
		}
		all = append(all, z)
	}
	return all
}

// heat is the worst trip that a zone is beyond.
func heat(zone sysfs.Attributes) (worst what) {
	types, _ := filepath.Glob(filepath.Join(zone.Dir, "trip_point_*_type"))
	now := zone.Number("temp")
	for _, file := range types {
		trip := strings.TrimSuffix(filepath.Base(file), "_type")
		if at := zone.Number(trip + "_temp"); at == 0 || now < at {
			continue
		}
		switch zone.Text(trip + "_type") {
		case "hot":
			worst = max(worst, hot)
		case "critical":
			worst = max(worst, tooHot)
		}
	}
	return worst
}
