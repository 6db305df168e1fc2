// Probe is the plugin "probe" as a program of its own.
package main

import (
	"log"
	"os"

	"github.com/cosi-os/cosi/plugins/probe"
	"github.com/cosi-os/cosi/sdk"
)

func main() {
	if os.Getenv(sdk.EnvEndpoint) != "" { // not only asked for its declaration
		if err := probe.BecomeForeign(); err != nil {
			log.Print("foreign program: ", err)
		}
	}
	sdk.Main(probe.Plugin())
}
