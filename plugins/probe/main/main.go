// Probe is the plugin "probe" as a program of its own.
package main

import (
	"github.com/cosi-os/cosi/plugins/probe"
	"github.com/cosi-os/cosi/sdk"
)

func main() { sdk.Main(probe.Plugin()) }
