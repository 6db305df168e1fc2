// Power-events is the plugin "power-events" as a program of its own.
package main

import (
	powerevents "github.com/cosi-os/cosi/plugins/power-events"
	"github.com/cosi-os/cosi/sdk"
)

func main() { sdk.Main(powerevents.Plugin()) }
