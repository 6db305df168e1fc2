package probe

import (
	"context"

	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	"github.com/cosi-os/cosi/sdk"
)

// apiAttempts go beyond the declaration over the plugin's own socket.
func apiAttempts(ctx context.Context, s *sdk.State) []attempt {
	client := s.Client()
	create := func(namespace, typ, owner string) func() error {
		return func() error {
			_, err := client.Create(ctx, &resourcepb.CreateRequest{
				Resource: &resourcepb.Resource{Metadata: &resourcepb.Metadata{
					Namespace: namespace, Type: typ, Id: "probe-intruder", Version: "1", Phase: "running", Owner: owner,
				}, Spec: &resourcepb.Spec{}},
				Options: &resourcepb.CreateOptions{Owner: owner},
			})
			return err
		}
	}
	return []attempt{
		{"read-undeclared-kind", "list Certificates", func() error {
			stream, err := client.List(ctx, &resourcepb.ListRequest{Namespace: "config", Type: "Certificates.machine.cosi.dev"})
			if err == nil {
				_, err = stream.Recv()
			}
			return err
		}},
		{"write-undeclared-kind", "create a MountPoint", create("config", "MountPoints.storage.cosi.dev", "")},
		{"write-as-another", "create a ProbeResult as owner mount", create("status", resultType, "mount")},
		{"write-as-person", "create a ProbeResult without an owner", create("status", resultType, "")},
		{"destroy-anothers-resource", "destroy its own PluginStatus", func() error {
			_, err := client.Destroy(ctx, &resourcepb.DestroyRequest{
				Namespace: "status", Type: pluginType, Id: "probe", Options: &resourcepb.DestroyOptions{Owner: "runtime"},
			})
			return err
		}},
		{"change-content-of-input", "change the version in its own PluginStatus", changeInput(ctx, s, func(r *resourcepb.Resource) {
			r.Spec = &resourcepb.Spec{ProtoSpec: []byte{0x2a, 1, 'x'}} // field 5: version
		})},
		{"change-labels-of-input", "label its own PluginStatus", changeInput(ctx, s, func(r *resourcepb.Resource) {
			r.Metadata.Labels = map[string]string{"probe": "was here"}
		})},
		{"finalizer-of-another", "put the finalizer of mount on its own PluginStatus", changeInput(ctx, s, func(r *resourcepb.Resource) {
			r.Metadata.Finalizers = append(r.Metadata.Finalizers, "mount")
		})},
	}
}

// changeInput updates the plugin's own PluginStatus, as it is now and as its owner, in one thing.
func changeInput(ctx context.Context, s *sdk.State, change func(*resourcepb.Resource)) func() error {
	return func() error {
		answer, err := s.Client().Get(ctx, &resourcepb.GetRequest{Namespace: "status", Type: pluginType, Id: "probe"})
		if err != nil {
			return err
		}
		r := answer.GetResource()
		change(r)
		_, err = s.Client().Update(ctx, &resourcepb.UpdateRequest{
			NewResource: r, Options: &resourcepb.UpdateOptions{Owner: r.GetMetadata().GetOwner()},
		})
		return err
	}
}
