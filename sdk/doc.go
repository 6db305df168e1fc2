// Package sdk is what a plugin is written with: controllers that read resources from memory, make the world what they say, and
// write what they found.
//
// A plugin's main calls Main with a Plugin. The SDK connects to the runtime, registers, watches every input, and calls each
// controller's Reconcile when something may have to be done. It promises:
//
//   - Reconcile is first called when all inputs and outputs of its controller are in memory, except events, and never twice at a time.
//   - A change is never lost: what changes while Reconcile runs leads to one more call. Changes may be taken together.
//   - When the runtime restarts, the plugin connects again; when the runtime lost its memory store, all inputs are read again
//     and every controller reconciles, so that all outputs are written again.
//
// A controller may not assume that it is called once for each change, nor that it sees every version.
//
// # Writing a plugin
//
// A plugin is a program and a plugin.json (package declaration) that says what it is and what it may do: the kinds it reads and
// writes, capabilities, devices, paths, classes of system calls. All else is refused, by the kernel and by the runtime. Print it with
// --declaration. Embed it, and call Main:
//
//	package main
//
//	import (
//		"context"
//		_ "embed"
//
//		"github.com/cosi-os/cosi/sdk"
//		storagepb "github.com/cosi-os/cosi/api/cosi/storage/v1alpha1"
//	)
//
//	//go:embed plugin.json
//	var declared []byte
//
//	const points, statuses = "MountPoints.storage.cosi.dev", "MountPointStatuses.storage.cosi.dev"
//
//	func main() {
//		sdk.Main(sdk.Plugin{Declaration: declared, Version: "0.1.0", Controllers: []sdk.Controller{{
//			Name: "mounts", Inputs: []string{points}, Outputs: []string{statuses}, Reconcile: reconcile,
//		}}})
//	}
//
//	func reconcile(ctx context.Context, s *sdk.State) error {
//		for _, p := range sdk.List[*storagepb.MountPoint](s, points) {
//			status := &storagepb.MountPointStatus{ObservedVersion: p.GetVersion(), Reason: "Waiting"}
//			if err := s.Write(ctx, statuses, p.GetId(), status, p.Metadata); err != nil {
//				return err
//			}
//		}
//		return nil
//	}
//
// The example of this package adds what a controller does that holds something: a finalizer. The kinds that a plugin reads and writes
// are known by the protobuf messages that it imports; a kind of one's own is a message with the option cosi.resource.meta.kind.
//
// Main forbids the process, and all it might become, to execute programs. Build statically (CGO_ENABLED=0), and with the tag
// grpcnotrace: plugin mount is 8.5 MB with it and 11.7 MB without.
//
// The socket speaks plain gRPC (cosi.resource.State and cosi.plugin.v1alpha1.Plugin): a plugin need not be written in Go.
package sdk
