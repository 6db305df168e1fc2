// Etcd-guard is the plugin "etcd-guard" as a program of its own.
package main

import (
	etcdguard "github.com/cosi-os/cosi/plugins/etcd-guard"
	"github.com/cosi-os/cosi/sdk"
)

func main() { sdk.Main(etcdguard.Plugin()) }
