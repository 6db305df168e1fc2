// Link-events is the plugin "link-events" as a program of its own.
package main

import (
	linkevents "github.com/cosi-os/cosi/plugins/link-events"
	"github.com/cosi-os/cosi/sdk"
)

func main() { sdk.Main(linkevents.Plugin()) }
