// Command main is the network plugin on its own.
package main

import (
	"github.com/cosi-os/cosi/plugins/network"
	"github.com/cosi-os/cosi/sdk"
)

func main() { sdk.Main(network.Plugin()) }
