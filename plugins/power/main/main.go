// Power is the plugin "power" as a program of its own.
package main

import (
	"github.com/cosi-os/cosi/plugins/power"
	"github.com/cosi-os/cosi/sdk"
)

func main() { sdk.Main(power.Plugin()) }
