// Package mountevents is the generator for mounts: it writes an event when something is mounted, unmounted, or becomes read-only, that no
// MountPoint asked for, and when a file system finds an error in itself.
//
// A note from the kernel only says that something has changed, and when; what it was is the difference between the mount table now and
// before. What is mounted when the plugin starts is no event: PID 1's mounts are from before, and it makes no others.
package mountevents

import (
	_ "embed"
	"time"

	"github.com/cosi-os/cosi/plugins/internal/doorbell"
	"github.com/cosi-os/cosi/sdk"
)

//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target amd64,arm64 -no-global-types probe mount.bpf.c -- -I../internal/doorbell/bpf

// Types of the plugin's input, and of its output beside its GeneratorStatus.
const (
	pointType = "MountPoints.storage.cosi.dev"
	eventType = "MountEvents.events.cosi.dev"
)

// name is the plugin's, and the id of its GeneratorStatus.
const name = "mount-events"

// Version is the plugin's version.
const Version = "0.1.0"

// silence is how long the mount table's bell may be silent before the table is looked at nevertheless: it does not ring for a file system alone.
const silence = time.Minute

//go:embed plugin.json
var declared []byte

// Plugin returns the plugin.
func Plugin() sdk.Plugin {
	f := &faults{}
	return plugin(newGenerator(&doorbell.Bell[note]{Sources: sources(f, silence)}, f))
}

func plugin(g *generator) sdk.Plugin {
	return sdk.Plugin{
		Declaration: declared,
		Version:     Version,
		Controllers: []sdk.Controller{{
			Name:      "mounts",
			Inputs:    []string{pointType},
			Outputs:   []string{doorbell.StatusType},
			Events:    []string{eventType},
			Reconcile: g.reconcile,
			Watch:     g.bell.Watch,
		}},
	}
}
