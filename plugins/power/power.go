// Package power is the plugin that takes the node down: for ShutdownRequests of people and for its own, after a press of the power button,
// and when power or cooling fails. It asks those first who hold ShutdownInhibitors.
//
// It decides only that a request is acted on, and once: a ShutdownStatus with the reason Draining is what makes the runtime drain
// all plugins and PID 1 power off or reboot.
package power

import (
	_ "embed"

	"github.com/cosi-os/cosi/plugins/internal/alarm"
	"github.com/cosi-os/cosi/sdk"
)

// Types of the plugin's inputs and outputs.
const (
	requestType         = "ShutdownRequests.power.cosi.dev"
	inhibitorType       = "ShutdownInhibitors.power.cosi.dev"
	inhibitorStatusType = "ShutdownInhibitorStatuses.power.cosi.dev"
	pluginType          = "PluginStatuses.service.cosi.dev"
	statusType          = "ShutdownStatuses.power.cosi.dev"
	supplyType          = "PowerSupplies.power.cosi.dev"
	eventType           = "PowerEvents.power.cosi.dev"
)

// Version is the plugin's version.
const Version = "0.1.0"

//go:embed plugin.json
var declared []byte

// Plugin returns the plugin.
func Plugin() sdk.Plugin { return plugin(realClock{}) }

func plugin(c clock) sdk.Plugin {
	q := &requests{clock: c, alarm: alarm.New(c)}
	return sdk.Plugin{
		Declaration: declared,
		Version:     Version,
		Controllers: []sdk.Controller{
			{
				Name:      "requests",
				Inputs:    []string{requestType, inhibitorType, pluginType},
				Outputs:   []string{statusType, inhibitorStatusType},
				Reconcile: q.reconcile,
				Watch:     q.alarm.Watch,
			},
			{
				Name:      "causes",
				Inputs:    []string{eventType, supplyType},
				Outputs:   []string{requestType},
				Reconcile: (&causes{clock: c}).reconcile,
			},
		},
	}
}
