// Block-events is the plugin "block-events" as a program of its own.
package main

import (
	blockevents "github.com/cosi-os/cosi/plugins/block-events"
	"github.com/cosi-os/cosi/sdk"
)

func main() { sdk.Main(blockevents.Plugin()) }
