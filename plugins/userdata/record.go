package userdata

import (
	"context"
	"slices"
	"strings"

	machinepb "github.com/cosi-os/cosi/api/cosi/machine/v1alpha1"
	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	"github.com/cosi-os/cosi/sdk"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// recorded returns the record of f's very bytes, nil if they have not been applied. A disk may have another name since.
func recorded(s *sdk.State, f *found) *machinepb.UserDataRecord {
	for _, r := range sdk.List[*machinepb.UserDataRecord](s, kindRecord) {
		o := r.Spec.GetOutcome()
		switch {
		case f.absent() || o.GetSource() != f.source || !finished(o.GetState()):
		case f.source == sourceESP && f.err != nil && r.GetId() == f.id: // applied at an earlier boot, and not to be read again
			return r.Spec
		case f.err == nil && o.GetDigest() == f.digest():
			return r.Spec
		}
	}
	return nil
}

// describesNetwork tells the image's defaults as they were applied while nothing else described the network.
func describesNetwork(r *machinepb.UserDataRecord) bool {
	return r.GetOutcome().GetSource() == sourceImage && slices.ContainsFunc(r.GetResources(), func(name string) bool {
		typ, _, _ := strings.Cut(name, "/")
		return strings.HasSuffix(typ, groupNetwork)
	})
}

// earlier returns what the source with that id wrote when its digest was another.
func earlier(s *sdk.State, id string) []string {
	r, ok := sdk.Get[*machinepb.UserDataRecord](s, kindRecord, id)
	if !ok {
		return nil
	}
	return r.Spec.GetResources()
}

const (
	namespaceConfig  = "config"
	kindCertificates = "Certificates.machine.cosi.dev"
	idCertificates   = "node"
)

// askTrust finds out, once, whether the node has a trust anchor before any user data is read. One from the ESP itself, by a plugin that
// was interrupted before it had applied the rest, does not count.
func (c *controller) askTrust(ctx context.Context, s *sdk.State) error {
	if c.trusted != nil {
		return nil
	}
	got, err := s.Client().Get(ctx, &resourcepb.GetRequest{Namespace: namespaceConfig, Type: kindCertificates, Id: idCertificates})
	if err != nil && status.Code(err) != codes.NotFound {
		return err
	}
	trusted := err == nil
	if from, ok := strings.CutPrefix(got.GetResource().GetMetadata().GetAnnotations()[annotationProvenance], provenanceUserData+sourceESP); ok {
		id, _, _ := strings.Cut(sourceESP+from, "@")
		_, trusted = sdk.Get[*machinepb.UserDataRecord](s, kindRecord, id)
	}
	c.trusted = &trusted
	return nil
}
