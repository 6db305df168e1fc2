// Package powerevents is the generator for power: it shows the power supplies that the node has, and writes an event for each press of a power
// or sleep key, each move of a lid, each change of a supply and each thermal zone that is too hot.
//
// A note from the kernel that a supply has changed only says where to look: PowerSupplies are what /sys says then, and an event says what is
// different. What comes of an event is for others to decide (plugin power).
package powerevents

import (
	_ "embed"

	"github.com/cosi-os/cosi/plugins/internal/doorbell"
	"github.com/cosi-os/cosi/sdk"
)

//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target amd64,arm64 -no-global-types probe power.bpf.c -- -I../internal/doorbell/bpf

// Types of the plugin's outputs.
const (
	eventType  = "PowerEvents.power.cosi.dev"
	supplyType = "PowerSupplies.power.cosi.dev"
)

// name is the plugin's, and the id of its GeneratorStatus.
const name = "power-events"

// Version is the plugin's version.
const Version = "0.1.0"

//go:embed plugin.json
var declared []byte

// Plugin returns the plugin.
func Plugin() sdk.Plugin {
	return plugin(newGenerator(&doorbell.Bell[note]{Sources: sources(doorbell.Often)}, "/sys"))
}

func plugin(g *generator) sdk.Plugin {
	return sdk.Plugin{
		Declaration: declared,
		Version:     Version,
		Controllers: []sdk.Controller{{
			Name:      "power",
			Outputs:   []string{supplyType, doorbell.StatusType},
			Events:    []string{eventType},
			Reconcile: g.reconcile,
			Watch:     g.watch,
		}},
	}
}
