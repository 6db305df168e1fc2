package vmtest

import (
	"errors"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	"github.com/cosi-os/cosi/api/document"
	"github.com/cosi-os/cosi/api/kinds"
	"github.com/cosi-os/cosi/tools/client"
)

// converge is how long a resource may take until it is so, on hardware.
const converge = 15 * time.Second

// Kind finds one of the node's kinds by any of its names.
func (n *Node) Kind(t testing.TB, name string) *kinds.Kind {
	t.Helper()
	kind, err := n.Client.Kind(n.Patience(t, converge), name)
	if err != nil {
		t.Fatal(err)
	}
	return kind
}

// Apply writes every document of a YAML text and returns the resources as they are then. It does not
// wait until they are so: see Converged and Until.
func (n *Node) Apply(t testing.TB, text string) []*resourcepb.Resource {
	t.Helper()
	documents, problems := document.Parse("test.yaml", []byte(text))
	set, err := n.Client.Kinds(n.Patience(t, converge))
	if err != nil {
		t.Fatal(err)
	}
	var applied []*resourcepb.Resource
	for _, d := range documents {
		r, more := d.Resolve(set)
		if problems = append(problems, more...); len(problems) > 0 {
			break
		}
		_, now, err := n.Client.Apply(n.Patience(t, converge), set.ByType(r.GetMetadata().GetType()), r)
		if err != nil {
			t.Fatal(err)
		}
		applied = append(applied, now)
	}
	if len(problems) > 0 {
		t.Fatalf("the test's document: %v", problems)
	}
	return applied
}

// Converged waits until each resource's observed kind shows it as ready in this version.
func (n *Node) Converged(t testing.TB, resources ...*resourcepb.Resource) {
	t.Helper()
	for _, r := range resources {
		m := r.GetMetadata()
		if err := n.Client.Wait(n.Patience(t, converge), n.Kind(t, m.GetType()), m.GetId(), m.GetVersion()); err != nil {
			t.Fatal(err)
		}
	}
}

// Delete tears a resource down and waits until it is gone.
func (n *Node) Delete(t testing.TB, kind, id string) {
	t.Helper()
	if err := n.Client.Delete(n.Patience(t, converge), n.Kind(t, kind), id); err != nil {
		t.Fatal(err)
	}
}

// Get reads the content of a resource into spec. It returns the metadata, or nil if there is no such
// resource.
func (n *Node) Get(t testing.TB, kind, id string, spec proto.Message) *resourcepb.Metadata {
	t.Helper()
	r, err := n.Client.Get(n.Patience(t, converge), n.Kind(t, kind), id)
	if client.Code(err) == codes.NotFound {
		return nil
	}
	if err == nil {
		err = proto.Unmarshal(r.GetSpec().GetProtoSpec(), spec)
	}
	if err != nil {
		t.Fatal(err)
	}
	return r.GetMetadata()
}

// Until watches a resource until ok likes its content, which is decoded into spec. ok gets nil
// metadata when the resource does not exist.
func (n *Node) Until(t testing.TB, kind, id string, spec proto.Message, ok func(*resourcepb.Metadata) bool) {
	t.Helper()
	last := "nothing"
	err := n.Client.Watch(n.Patience(t, converge), n.Kind(t, kind), id, nil, func(e *resourcepb.Event) error {
		m := e.GetResource().GetMetadata()
		proto.Reset(spec)
		if e.GetEventType() == resourcepb.EventType_DESTROYED {
			m, last = nil, "that it does not exist"
		} else if err := proto.Unmarshal(e.GetResource().GetSpec().GetProtoSpec(), spec); err != nil {
			return err
		} else {
			last = e.GetResource().GetSpec().GetYamlSpec()
		}
		if ok(m) {
			return client.ErrStop
		}
		return nil
	})
	if err != nil {
		t.Fatalf("%s/%s: %v; seen last: %s", kind, id, err, last)
	}
}

// Refused fails the test unless err is the node's refusal with that code.
func Refused(t testing.TB, err error, code codes.Code) {
	t.Helper()
	if err == nil || client.Code(err) != code {
		t.Errorf("the node answers %v; want %v", errors.Join(err), code)
	}
}
