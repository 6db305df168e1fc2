package userdata

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	machinepb "github.com/cosi-os/cosi/api/cosi/machine/v1alpha1"
	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	"github.com/cosi-os/cosi/api/document"
	"github.com/cosi-os/cosi/api/kinds"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

const (
	// annotationProvenance marks what user data or the image wrote. The runtime takes it off when a person writes the resource, so
	// whoever finds it may change the resource.
	annotationProvenance = "cosi.dev/provenance"
	provenanceImage      = "image"
	provenanceUserData   = "userdata/"

	groupNetwork = ".network.cosi.dev"

	// dryRun is the metadata with which the runtime says what it would answer, and does nothing.
	dryRun = "cosi-dry-run"
)

// addressing are the kinds, in lower case, that say how a link gets an address: whoever writes one describes the network. A name server or
// a route alone needs an address from elsewhere.
var addressing = []string{"addresses.network.cosi.dev", "dhcpclients.network.cosi.dev"}

// applier writes documents as resources. It sends the content as YAML: the runtime has the schemas, checks, and says which field is wrong.
type applier struct {
	client resourcepb.StateClient
	names  *names
	// network says that a source read without a network says how links get addresses; the image's own network resources are then left out.
	network bool
}

func newApplier(ctx context.Context, client resourcepb.StateClient, offline []*found) (*applier, error) {
	a := &applier{client: client, names: &names{client: client}}
	for _, f := range offline {
		documents, _ := document.Parse(f.name, f.data)
		for _, d := range documents {
			addresses, err := a.addresses(ctx, d)
			if err != nil {
				return nil, err
			}
			a.network = a.network || addresses
		}
	}
	return a, nil
}

// addresses reports whether d says how a link gets an address, and will be taken: a mistake in it must not cost the node the network on which
// it could be told of.
func (a *applier) addresses(ctx context.Context, d *document.Document) (bool, error) {
	k, err := a.names.lookup(ctx, d.Metadata.Type)
	if errors.Is(err, kinds.ErrUnknown) {
		return false, nil
	}
	if err != nil || !slices.Contains(addressing, strings.ToLower(k.typ)) {
		return false, err
	}
	r, err := resource(d, k, "")
	if err != nil {
		return false, nil // apply says what is wrong
	}
	_, err = a.client.Create(metadata.AppendToOutgoingContext(ctx, dryRun, "true"), &resourcepb.CreateRequest{Resource: r})
	if again(err) {
		return false, err
	}
	return status.Code(err) != codes.InvalidArgument, nil
}

// apply writes every good document of f, lists the bad ones in s and returns what f has written, as TYPE/ID. earlier is what an earlier
// digest of f wrote; of that, what is no longer among the image's defaults is withdrawn. An error means that the runtime could not be reached: try again.
func (a *applier) apply(ctx context.Context, f *found, earlier []string, s *machinepb.UserDataSource) (written []string, err error) {
	documents, problems := document.Parse(f.name, f.data)
	broken := map[int]bool{}
	for _, p := range problems {
		broken[p.Document] = true
		s.Problems = append(s.Problems, &machinepb.UserDataSource_Problem{
			Document: uint32(p.Document), Line: uint32(p.Line), Field: p.Field, Message: p.Message, Resource: p.Resource,
		})
	}
	if documents, err = a.definitionsFirst(ctx, documents); err != nil {
		return nil, err
	}
	left := 0
	var described []string
	for _, d := range documents {
		r, done, err := a.document(ctx, &sourceInput{found: f, earlier: earlier, written: written}, d, s)
		if err != nil {
			return nil, err
		}
		if r != nil {
			described = append(described, resourceName(r))
		}
		switch done {
		case applied:
			s.Applied++
			written = append(written, resourceName(r))
			a.names.listed = a.names.listed && r.Metadata.Type != kindDefinition // aliases of the new kind are still to be read
		case leftOut:
			left++
		}
	}
	if f.source == sourceImage {
		if err := a.withdraw(ctx, earlier, described); err != nil {
			return nil, err
		}
	}
	s.Documents = uint32(len(documents) + len(broken))
	switch {
	case len(s.Problems) == 0:
		s.State = stateApplied
	case s.Applied > 0:
		s.State = statePartlyApplied
	default:
		s.State = stateFailed
	}
	s.Message = summary(s, left)
	return written, nil
}

// definitionsFirst returns documents in the order in which they are written: the others may be of kinds that definitions among them bring,
// wherever they stand.
func (a *applier) definitionsFirst(ctx context.Context, documents []*document.Document) ([]*document.Document, error) {
	var first, rest []*document.Document
	for _, d := range documents {
		typ, err := a.names.typeOf(ctx, d.Metadata.Type)
		switch {
		case err != nil:
			return nil, err
		case typ == strings.ToLower(kindDefinition):
			first = append(first, d)
		default:
			rest = append(rest, d)
		}
	}
	return append(first, rest...), nil
}

// sourceInput is user data that is being applied.
type sourceInput struct {
	*found
	earlier []string // what an earlier digest wrote
	written []string // what this one has written so far
}

func resourceName(r *resourcepb.Resource) string { return r.Metadata.Type + "/" + r.Metadata.Id }

func summary(s *machinepb.UserDataSource, left int) string {
	message := fmt.Sprintf("%d of %d documents applied", s.Applied, s.Documents)
	if left > 0 {
		message += fmt.Sprintf(", %d replaced", left)
	}
	if len(s.Problems) > 0 {
		p := s.Problems[0]
		message += "; "
		if p.Line > 0 {
			message += fmt.Sprintf("line %d: ", p.Line)
		}
		if p.Field != "" {
			message += p.Field + ": "
		}
		message += p.Message
	}
	return message
}

// outcome is what became of one document.
type outcome int

const (
	failed outcome = iota
	applied
	leftOut
)

func (a *applier) document(ctx context.Context, f *sourceInput, d *document.Document, s *machinepb.UserDataSource) (*resourcepb.Resource, outcome, error) {
	kind, err := a.names.lookup(ctx, d.Metadata.Type)
	if errors.Is(err, kinds.ErrUnknown) {
		s.Problems = append(s.Problems, &machinepb.UserDataSource_Problem{
			Document: uint32(d.Index), Line: uint32(d.FieldLine("metadata.type")), Field: "metadata.type", Message: err.Error(), Resource: d.Metadata.Type + "/" + d.Metadata.ID,
		})
		return nil, failed, nil
	}
	if err != nil {
		return nil, failed, err
	}
	r, err := resource(d, kind, f.provenance())
	if err != nil {
		s.Problems = append(s.Problems, &machinepb.UserDataSource_Problem{
			Document: uint32(d.Index), Line: uint32(d.FieldLine("spec")), Field: "spec", Message: err.Error(), Resource: resourceName(r),
		})
		return r, failed, nil
	}
	if f.source == sourceImage && a.network && strings.HasSuffix(kind.typ, groupNetwork) {
		return r, leftOut, a.leaveOut(ctx, r)
	}
	err = a.put(ctx, r, f)
	switch {
	case err == nil:
		return r, applied, nil
	case errors.Is(err, errReplaced):
		return r, leftOut, nil
	case again(err):
		return r, failed, err
	}
	s.Problems = append(s.Problems, problems(d, r, err)...)
	return r, failed, nil
}

// withdraw removes the defaults of another image that this one does not have: what a version that was left again has demanded of the node must not
// stay behind. Those of a kind that is gone stay, like all of it, and so do definitions, which there may be resources of.
func (a *applier) withdraw(ctx context.Context, earlier, described []string) error {
	for _, name := range earlier {
		typ, id, _ := strings.Cut(name, "/")
		if slices.Contains(described, name) || typ == kindDefinition {
			continue
		}
		k, err := a.names.lookup(ctx, typ)
		if errors.Is(err, kinds.ErrUnknown) {
			continue
		}
		if err == nil {
			err = a.leaveOut(ctx, &resourcepb.Resource{Metadata: &resourcepb.Metadata{Namespace: k.namespace, Type: k.typ, Id: id}})
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// leaveOut removes a default of the image that an earlier boot, with other user data, has left.
func (a *applier) leaveOut(ctx context.Context, r *resourcepb.Resource) error {
	m := r.Metadata
	got, err := a.client.Get(ctx, &resourcepb.GetRequest{Namespace: m.Namespace, Type: m.Type, Id: m.Id})
	if status.Code(err) == codes.NotFound || err == nil && got.Resource.Metadata.Annotations[annotationProvenance] != provenanceImage {
		return nil
	}
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	_, err = a.client.TeardownAndDestroy(ctx, &resourcepb.TeardownAndDestroyRequest{Namespace: m.Namespace, Type: m.Type, Id: m.Id})
	if status.Code(err) == codes.NotFound {
		return nil
	}
	return err
}

// resource returns what d describes, and fails when its content cannot be copied.
func resource(d *document.Document, k kind, provenance string) (*resourcepb.Resource, error) {
	spec, err := d.SpecYAML()
	annotations := map[string]string{}
	for key, value := range d.Metadata.Annotations {
		annotations[key] = value
	}
	annotations[annotationProvenance] = provenance
	namespace := d.Metadata.Namespace
	if namespace == "" {
		namespace = k.namespace
	}
	return &resourcepb.Resource{
		Metadata: &resourcepb.Metadata{Namespace: namespace, Type: k.typ, Id: d.Metadata.ID, Labels: d.Metadata.Labels, Annotations: annotations},
		Spec:     &resourcepb.Spec{YamlSpec: spec},
	}, err
}

// put creates a resource, or updates one that the same source or the image's defaults wrote last.
func (a *applier) put(ctx context.Context, r *resourcepb.Resource, f *sourceInput) error {
	if slices.Contains(f.written, resourceName(r)) {
		return status.Error(codes.AlreadyExists, "an earlier document of the same source describes it: left out")
	}
	m := r.Metadata
	get := &resourcepb.GetRequest{Namespace: m.Namespace, Type: m.Type, Id: m.Id}
	got, err := a.client.Get(ctx, get)
	if status.Code(err) == codes.NotFound {
		if slices.Contains(f.earlier, resourceName(r)) {
			return deleted(f)
		}
		_, err = a.client.Create(ctx, &resourcepb.CreateRequest{Resource: r})
		return err
	}
	if err != nil {
		return err
	}
	old := got.Resource.Metadata
	if f.source != sourceImage && old.Annotations[annotationProvenance] == f.provenance() {
		return nil // written before the plugin, or the node, was interrupted
	}
	if err := mayReplace(old.Annotations[annotationProvenance], f); err != nil {
		return err
	}
	m.Version, m.Phase, m.Owner, m.Finalizers = old.Version, old.Phase, old.Owner, old.Finalizers
	_, err = a.client.Update(ctx, &resourcepb.UpdateRequest{NewResource: r, Options: &resourcepb.UpdateOptions{Owner: old.Owner}})
	return err
}

// mayReplace says why what was written last, by its provenance, is not for f to replace.
func mayReplace(last string, f *sourceInput) error {
	switch {
	case f.source == sourceImage:
		if last == provenanceImage {
			return nil
		}
		return errReplaced
	case last == provenanceImage, strings.HasPrefix(last, provenanceUserData+f.id+"@"):
		return nil
	case last == "":
		return status.Error(codes.AlreadyExists, "changed over the API since: left as it is")
	default:
		return status.Errorf(codes.AlreadyExists, "already written by %s: left as it is", last)
	}
}

// deleted is the error for a resource that an earlier digest wrote and somebody has deleted.
func deleted(f *sourceInput) error {
	if f.source == sourceImage {
		return errReplaced
	}
	return status.Error(codes.AlreadyExists, "deleted over the API since: left so")
}

// errReplaced says that somebody has replaced a default resource of the image, which is what defaults are for.
var errReplaced = errors.New("replaced")

// patience is how long a default resource may take to go.
const patience = 20 * time.Second

// again reports whether err says nothing about the document.
func again(err error) bool {
	return slices.Contains([]codes.Code{codes.Unavailable, codes.Canceled, codes.DeadlineExceeded, codes.Aborted, codes.FailedPrecondition}, status.Code(err))
}

// problems turns what the runtime said of d into places in the input.
func problems(d *document.Document, r *resourcepb.Resource, err error) []*machinepb.UserDataSource_Problem {
	name := r.Metadata.Type + "/" + r.Metadata.Id
	var all []*machinepb.UserDataSource_Problem
	for _, detail := range status.Convert(err).Details() {
		bad, ok := detail.(*errdetails.BadRequest)
		if !ok {
			continue
		}
		for _, v := range bad.FieldViolations {
			all = append(all, &machinepb.UserDataSource_Problem{
				Document: uint32(d.Index), Line: uint32(d.FieldLine(v.Field)), Field: v.Field, Message: v.Description, Resource: name,
			})
		}
	}
	if all == nil {
		all = append(all, &machinepb.UserDataSource_Problem{Document: uint32(d.Index), Line: uint32(d.Line), Message: status.Convert(err).Message(), Resource: name})
	}
	return all
}
