// Gauge is the plugin "gauge" as a program of its own.
package main

import (
	"github.com/cosi-os/cosi/plugins/gauge"
	"github.com/cosi-os/cosi/sdk"
)

func main() { sdk.Main(gauge.Plugin()) }
