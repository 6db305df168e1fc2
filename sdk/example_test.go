package sdk_test

import (
	"context"
	"errors"

	storagepb "github.com/cosi-os/cosi/api/cosi/storage/v1alpha1"
	"github.com/cosi-os/cosi/sdk"
)

// plugin.json, which a plugin embeds with //go:embed.
const exampleDeclaration = `{
	"name": "pretend",
	"description": "says of each MountPoint that it is mounted",
	"inputs": [{"type": "MountPoints.storage.cosi.dev", "finalizers": true}],
	"outputs": ["MountPointStatuses.storage.cosi.dev"]
}`

// A plugin with one controller: each MountPoint gets a status, and a MountPoint that is deleted waits until its status is gone.
func Example() {
	const points, statuses = "MountPoints.storage.cosi.dev", "MountPointStatuses.storage.cosi.dev"
	reconcile := func(ctx context.Context, s *sdk.State) error {
		var errs []error
		for _, p := range sdk.List[*storagepb.MountPoint](s, points) {
			if p.TearingDown() {
				// Let go of the world first, then of the status, then of the resource.
				if err := s.Delete(ctx, statuses, p.GetId()); err != nil {
					errs = append(errs, err)
					continue
				}
				errs = append(errs, s.RemoveFinalizer(ctx, p.Metadata))
				continue
			}
			if err := s.AddFinalizer(ctx, p.Metadata); err != nil {
				errs = append(errs, err)
				continue
			}
			// Look at the world and make it what p.Spec says. Then say what it is.
			errs = append(errs, s.Write(ctx, statuses, p.GetId(), &storagepb.MountPointStatus{
				ObservedVersion: p.GetVersion(),
				Ready:           true,
				Reason:          "Mounted",
				Target:          p.Spec.GetTarget(),
			}, p.Metadata))
		}
		return errors.Join(errs...)
	}
	sdk.Main(sdk.Plugin{
		Declaration: []byte(exampleDeclaration),
		Version:     "0.1.0",
		Controllers: []sdk.Controller{{
			Name: "mounts", Inputs: []string{points}, Outputs: []string{statuses}, Reconcile: reconcile,
		}},
	})
}
