// Plugins is the first-party plugins as one executable: as programs of their own each would cost another 10 MB of the node's memory.
//
// The plugin is chosen by the name the program is called by, or by the first argument: "plugins mount".
package main

import (
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/cosi-os/cosi/plugins/attestation"
	blockevents "github.com/cosi-os/cosi/plugins/block-events"
	kernelevents "github.com/cosi-os/cosi/plugins/kernel-events"
	linkevents "github.com/cosi-os/cosi/plugins/link-events"
	"github.com/cosi-os/cosi/plugins/mount"
	mountevents "github.com/cosi-os/cosi/plugins/mount-events"
	"github.com/cosi-os/cosi/plugins/network"
	"github.com/cosi-os/cosi/plugins/power"
	powerevents "github.com/cosi-os/cosi/plugins/power-events"
	pressureevents "github.com/cosi-os/cosi/plugins/pressure-events"
	processevents "github.com/cosi-os/cosi/plugins/process-events"
	"github.com/cosi-os/cosi/plugins/upgrade"
	"github.com/cosi-os/cosi/plugins/userdata"
	"github.com/cosi-os/cosi/plugins/volume"
	"github.com/cosi-os/cosi/sdk"
)

// plugins are constructors: nothing of a plugin begins to exist before it is chosen.
func plugins() map[string]func() sdk.Plugin {
	return map[string]func() sdk.Plugin{
		"attestation":     attestation.Plugin,
		"block-events":    blockevents.Plugin,
		"kernel-events":   kernelevents.Plugin,
		"link-events":     linkevents.Plugin,
		"mount":           mount.Plugin,
		"mount-events":    mountevents.Plugin,
		"network":         network.Plugin,
		"power":           power.Plugin,
		"power-events":    powerevents.Plugin,
		"pressure-events": pressureevents.Plugin,
		"process-events":  processevents.Plugin,
		"upgrade":         upgrade.Plugin,
		"userdata":        userdata.Plugin,
		"volume":          volume.Plugin,
	}
}

func main() {
	all := plugins()
	name, args := choose(all, os.Args)
	plugin, ok := all[name]
	if !ok {
		usage(os.Stderr, all, name)
		os.Exit(2)
	}
	os.Args = args
	sdk.Main(plugin())
}

// choose returns the plugin's name and the arguments that are left for it, its own name first.
func choose[T any](all map[string]T, args []string) (name string, rest []string) {
	if name := filepath.Base(args[0]); has(all, name) {
		return name, args
	}
	if len(args) > 1 {
		return args[1], args[1:]
	}
	return "", nil
}

func has[T any](all map[string]T, name string) bool {
	_, ok := all[name]
	return ok
}

func usage[T any](out io.Writer, all map[string]T, name string) {
	if name != "" && name != "--help" && name != "-h" {
		fmt.Fprintf(out, "there is no plugin %q\n", name)
	}
	fmt.Fprintf(out, "usage: plugins NAME [--help]\nNAME is one of %q. Linked or renamed to NAME the program needs no argument.\n", slices.Sorted(maps.Keys(all)))
}
