// Command userdata is the plugin userdata on its own.
package main

import (
	"github.com/cosi-os/cosi/plugins/userdata"
	"github.com/cosi-os/cosi/sdk"
)

func main() { sdk.Main(userdata.Plugin()) }
