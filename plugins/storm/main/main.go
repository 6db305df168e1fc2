// Storm is the plugin "storm" as a program of its own.
package main

import (
	"github.com/cosi-os/cosi/plugins/storm"
	"github.com/cosi-os/cosi/sdk"
)

func main() { sdk.Main(storm.Plugin()) }
