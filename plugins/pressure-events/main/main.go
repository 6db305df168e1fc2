// Pressure-events is the plugin "pressure-events" as a program of its own.
package main

import (
	pressureevents "github.com/cosi-os/cosi/plugins/pressure-events"
	"github.com/cosi-os/cosi/sdk"
)

func main() { sdk.Main(pressureevents.Plugin()) }
