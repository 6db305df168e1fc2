// Package linkevents is the generator for the network: it writes an event for each change that plugin network did not make, of carriers,
// speeds, links, addresses and routes.
//
// A note from the kernel only says that something is to be looked at: an event is what differs from the last look. Between two looks a
// carrier may come and go unseen; the kernel counts how often it did, and so do the events.
//
// What plugin network makes carries its mark, and what the kernel makes of a link or an address by itself carries the kernel's: of both there
// are no events. The mark stays with whoever takes such a thing away, so that of that there are none either.
package linkevents

import (
	_ "embed"

	"github.com/cosi-os/cosi/plugins/internal/doorbell"
	"github.com/cosi-os/cosi/sdk"
)

//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target amd64,arm64 -no-global-types probe link.bpf.c -- -I../internal/doorbell/bpf

// eventType is the plugin's output beside its GeneratorStatus.
const eventType = "LinkEvents.events.cosi.dev"

// name is the plugin's, and the id of its GeneratorStatus.
const name = "link-events"

// Version is the plugin's version.
const Version = "0.1.0"

//go:embed plugin.json
var declared []byte

// Plugin returns the plugin.
func Plugin() sdk.Plugin {
	k := &kernel{sys: "/sys"}
	return plugin(newGenerator(&doorbell.Bell[note]{Sources: sources()}, k.look))
}

func plugin(g *generator) sdk.Plugin {
	return sdk.Plugin{
		Declaration: declared,
		Version:     Version,
		Controllers: []sdk.Controller{{
			Name:      "links",
			Outputs:   []string{doorbell.StatusType},
			Events:    []string{eventType},
			Reconcile: g.reconcile,
			Watch:     g.watch,
		}},
	}
}
