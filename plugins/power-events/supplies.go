package powerevents

import (
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"google.golang.org/protobuf/proto"

	powerpb "github.com/cosi-os/cosi/api/cosi/power/v1alpha1"
	"github.com/cosi-os/cosi/plugins/internal/sysfs"
)

// supplies are all power supplies, by the kernel's names.
type supplies map[string]*powerpb.PowerSupply

// look reads all power supplies below sys. One that goes while it is read is left out: the kernel rings for that, too.
func look(sys string) (supplies, error) {
	class := filepath.Join(sys, "class", "power_supply")
	entries, err := os.ReadDir(class)
	if errors.Is(err, fs.ErrNotExist) {
		return supplies{}, nil // no supply has come yet
	}
	if err != nil {
		return nil, err
	}
	all := supplies{}
	for _, e := range entries {
		a := sysfs.Attributes{Dir: filepath.Join(class, e.Name())}
		kind := a.Text("type")
		if kind == "" {
			continue
		}
		all[e.Name()] = &powerpb.PowerSupply{
			// A USB supply may be online in other ways than by 1: fixed or programmable.
			Kind: kind, Online: a.Number("online") > 0, Status: a.Text("status"), Capacity: capacity(a), Level: a.Text("capacity_level"),
			Peripheral: a.Text("scope") == "Device", Manufacturer: a.Text("manufacturer"), Model: a.Text("model_name"), Serial: a.Text("serial_number"),
		}
	}
	return all, nil
}

func capacity(a sysfs.Attributes) *uint32 {
	if !a.Has("capacity") {
		return nil
	}
	return proto.Uint32(uint32(a.Number("capacity")))
}

// change is what became of a supply.
type change struct{ action, device, message string }

// since returns what is different from before, in the order of the names. How full a battery is is no event, as long as it is not low.
func (now supplies) since(before supplies) []change {
	var all []change
	for _, name := range slices.Sorted(maps.Keys(now)) {
		switch was, there := before[name]; {
		case !there:
			all = append(all, change{"SupplyAdded", name, state(now[name])})
		case state(was) != state(now[name]):
			all = append(all, change{"SupplyChanged", name, state(now[name])})
		}
	}
	for _, name := range slices.Sorted(maps.Keys(before)) {
		if now[name] == nil {
			all = append(all, change{"SupplyRemoved", name, ""})
		}
	}
	return all
}

// state is a supply in words: "online", "Discharging", "Discharging, Low".
func state(s *powerpb.PowerSupply) string {
	text := s.GetStatus()
	switch {
	case text == "" && s.GetOnline():
		return "online"
	case text == "":
		return "offline"
	case s.GetLevel() == "Low" || s.GetLevel() == "Critical":
		text += ", " + s.GetLevel()
	}
	return text
}

// draining reports whether the node runs on a battery.
func (now supplies) draining() bool {
	for _, s := range now {
		if s.GetStatus() == "Discharging" && !s.GetPeripheral() {
			return true
		}
	}
	return false
}
