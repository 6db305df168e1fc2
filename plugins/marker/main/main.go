// Marker is the plugin "marker" as a program of its own.
package main

import (
	"github.com/cosi-os/cosi/plugins/marker"
	"github.com/cosi-os/cosi/sdk"
)

func main() { sdk.Main(marker.Plugin()) }
