// Mount is the plugin "mount" as a program of its own.
package main

import (
	"github.com/cosi-os/cosi/plugins/mount"
	"github.com/cosi-os/cosi/sdk"
)

func main() { sdk.Main(mount.Plugin()) }
