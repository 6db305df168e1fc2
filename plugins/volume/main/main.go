// Volume is the plugin "volume" as a program of its own.
package main

import (
	"github.com/cosi-os/cosi/plugins/volume"
	"github.com/cosi-os/cosi/sdk"
)

func main() { sdk.Main(volume.Plugin()) }
