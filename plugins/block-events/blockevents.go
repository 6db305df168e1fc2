// Package blockevents is the generator for block devices: it shows the disks and partitions that the node has, and writes an event for
// each thing that the kernel does to one.
//
// A note from the kernel only says where to look. Disks and Partitions are what /sys says then; BlockEvents are the notes.
package blockevents

import (
	_ "embed"

	"github.com/cosi-os/cosi/plugins/internal/doorbell"
	"github.com/cosi-os/cosi/sdk"
)

//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target amd64,arm64 -no-global-types probe block.bpf.c -- -I../internal/doorbell/bpf

// Types of the plugin's outputs.
const (
	eventType     = "BlockEvents.events.cosi.dev"
	diskType      = "Disks.storage.cosi.dev"
	partitionType = "Partitions.storage.cosi.dev"
)

// name is the plugin's, and the id of its GeneratorStatus.
const name = "block-events"

// Version is the plugin's version.
const Version = "0.1.0"

//go:embed plugin.json
var declared []byte

// Plugin returns the plugin.
func Plugin() sdk.Plugin {
	const sys = "/sys"
	return plugin(newGenerator(&doorbell.Bell[note]{Sources: sources(sys, doorbell.Often)}, sys))
}

func plugin(g *generator) sdk.Plugin {
	return sdk.Plugin{
		Declaration: declared,
		Version:     Version,
		Controllers: []sdk.Controller{{
			Name:      "devices",
			Outputs:   []string{diskType, partitionType, doorbell.StatusType},
			Events:    []string{eventType},
			Reconcile: g.reconcile,
			Watch:     g.bell.Watch,
		}},
	}
}
