// Kernel-events is the plugin "kernel-events" as a program of its own.
package main

import (
	kernelevents "github.com/cosi-os/cosi/plugins/kernel-events"
	"github.com/cosi-os/cosi/sdk"
)

func main() { sdk.Main(kernelevents.Plugin()) }
