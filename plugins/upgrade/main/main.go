// Upgrade is the plugin "upgrade" as a program of its own.
package main

import (
	"github.com/cosi-os/cosi/plugins/upgrade"
	"github.com/cosi-os/cosi/sdk"
)

func main() { sdk.Main(upgrade.Plugin()) }
