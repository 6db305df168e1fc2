// Mount-events is the plugin "mount-events" as a program of its own.
package main

import (
	mountevents "github.com/cosi-os/cosi/plugins/mount-events"
	"github.com/cosi-os/cosi/sdk"
)

func main() { sdk.Main(mountevents.Plugin()) }
