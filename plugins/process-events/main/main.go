// Process-events is the plugin "process-events" as a program of its own.
package main

import (
	processevents "github.com/cosi-os/cosi/plugins/process-events"
	"github.com/cosi-os/cosi/sdk"
)

func main() { sdk.Main(processevents.Plugin()) }
