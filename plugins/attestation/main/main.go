// Attestation is the plugin "attestation" as a program of its own.
package main

import (
	"github.com/cosi-os/cosi/plugins/attestation"
	"github.com/cosi-os/cosi/sdk"
)

func main() { sdk.Main(attestation.Plugin()) }
