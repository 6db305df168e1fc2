// Package etcdguard is the plugin that asks etcd before its node goes down: EtcdGuards say which etcd, ShutdownInhibitors make the node wait.
//
// While there is an EtcdGuard the plugin holds an inhibitor of mode DELAY, so that each ShutdownRequest waits for it:
//
//	           a request waits                 etcd agrees, or it is forced
//	watching ───────────────────▶ asked ───────────────────────────────────▶ leaving ──▶ the node goes down
//	(DELAY)  ◀─────────────────── (DELAY, BLOCK) ◀── no request is left ──── (no inhibitor)
//	           it was refused
//
// What agrees is the cluster: there is one lock, a key with a lease, for all members. Who goes down holds it until his member is healthy
// again, so that a second one sees it and stays up. A plugin that dies while its node is asked does not keep the node up: what power does
// then is in ShutdownInhibitor.
package etcdguard

import (
	_ "embed"

	"github.com/cosi-os/cosi/sdk"
)

// Types of the plugin's inputs and outputs.
const (
	guardType         = "EtcdGuards.etcd.cosi.dev"
	guardStatusType   = "EtcdGuardStatuses.etcd.cosi.dev"
	requestType       = "ShutdownRequests.power.cosi.dev"
	requestStatusType = "ShutdownStatuses.power.cosi.dev"
	inhibitorType     = "ShutdownInhibitors.power.cosi.dev"
)

// Version is the plugin's version.
const Version = "0.1.0"

//go:embed plugin.json
var declared []byte

// Plugin returns the plugin.
func Plugin() sdk.Plugin {
	g := &guard{worker: newWorker()}
	return sdk.Plugin{
		Declaration: declared,
		Version:     Version,
		Controllers: []sdk.Controller{{
			Name:      "guard",
			Inputs:    []string{guardType, requestType, requestStatusType},
			Outputs:   []string{guardStatusType, inhibitorType},
			Reconcile: g.reconcile,
			Watch:     g.worker.watch,
		}},
	}
}
