// Package gauge asks the plugins that only images for tests have. The benchmark and the soak measure with it.
package gauge

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	testpb "github.com/cosi-os/cosi/api/cosi/test/v1alpha1"
	"github.com/cosi-os/cosi/tools/client"
)

// Measure has the plugin gauge measure each process of the node, after it has watched them for a while. An id is good for one measurement.
func Measure(ctx context.Context, c *client.Client, id string, watch time.Duration) (*testpb.GaugeRequestStatus, error) {
	st := &testpb.GaugeRequestStatus{}
	return st, Ask(ctx, c, "Gauge", id, fmt.Sprintf("seconds: %d", int(watch.Seconds())), st)
}

// Ask makes a request of one of the plugins, by the name of their kinds, and waits for the answer.
func Ask(ctx context.Context, c *client.Client, plugin, id, spec string, status proto.Message) error {
	request, err := c.Kind(ctx, plugin+"Requests.test.cosi.dev")
	if err != nil {
		return err
	}
	answer, err := c.Kind(ctx, plugin+"RequestStatuses.test.cosi.dev")
	if err != nil {
		return err
	}
	_, r, err := c.Apply(ctx, request, &resourcepb.Resource{
		Metadata: &resourcepb.Metadata{Namespace: request.Namespace(), Type: request.Type(), Id: id, Version: "1", Phase: "running"},
		Spec:     &resourcepb.Spec{YamlSpec: spec},
	})
	if err != nil {
		return err
	}
	if err := c.Wait(ctx, request, id, r.GetMetadata().GetVersion()); err != nil {
		return err
	}
	if r, err = c.Get(ctx, answer, id); err != nil {
		return err
	}
	return proto.Unmarshal(r.GetSpec().GetProtoSpec(), status)
}
