package kills

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
)

// writer writes resources that nobody else writes, one call at a time, and remembers the answers.
type writer struct {
	namespace    string
	typ          string
	ids          []string
	known        map[string]*resourcepb.Resource // as acknowledged; none: it is not there
	last         *attempt                        // the call whose answer did not come
	acknowledged int
	unknown      int

	size   int     // of a content, in bytes; 0: up to 600
	ledger *ledger // nil: what was known before is forgotten
}

// attempt is what a call would make of a resource.
type attempt struct {
	id      string
	version string // "" for a resource that is destroyed
	content []byte
}

func newWriter(namespace, typ string, number int) *writer {
	w := &writer{namespace: namespace, typ: typ, known: map[string]*resourcepb.Resource{}}
	for i := range resourcesOfEach {
		w.ids = append(w.ids, fmt.Sprintf("w%d-%d", number, i))
	}
	return w
}

// write writes until the runtime is gone. It returns an error for an answer that should not be.
func (w *writer) write(ctx context.Context, c state, random *rand.Rand) error {
	for {
		if gone, err := w.writeOne(ctx, c, w.next(random)); gone || err != nil {
			return err
		}
	}
}

// writeOne makes one call, and says whether the runtime is gone.
func (w *writer) writeOne(ctx context.Context, c state, try *attempt) (gone bool, err error) {
	if err := w.ledger.sent(try); err != nil {
		return false, err
	}
	after, err := w.call(ctx, c, try)
	if code := status.Code(err); code == codes.Unavailable || code == codes.Canceled {
		w.last = try
		w.unknown++
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("%s/%s at version %q: %w", w.typ, try.id, try.version, err)
	}
	w.acknowledged++
	w.know(try.id, after)
	return false, w.ledger.answered(after)
}

// know notes what has become of a resource.
func (w *writer) know(id string, after *resourcepb.Resource) {
	if after == nil {
		delete(w.known, id)
	} else {
		w.known[id] = after
	}
}

// next decides what to do.
func (w *writer) next(random *rand.Rand) *attempt {
	try := &attempt{id: w.ids[random.IntN(len(w.ids))]}
	current := w.known[try.id]
	if current != nil && random.IntN(5) == 0 {
		return try
	}
	version, _ := strconv.Atoi(current.GetMetadata().GetVersion())
	try.version = strconv.Itoa(version + 1)
	size := w.size
	if size == 0 {
		size = 2 * random.IntN(300)
	}
	text := fmt.Sprintf("%s@%s %x", try.id, try.version, bytes.Repeat([]byte{byte(random.Uint32())}, size/2))
	try.content = protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), text)
	return try
}

// call does it.
func (w *writer) call(ctx context.Context, c state, try *attempt) (*resourcepb.Resource, error) {
	current := w.known[try.id]
	m := &resourcepb.Metadata{Namespace: w.namespace, Type: w.typ, Id: try.id, Version: current.GetMetadata().GetVersion(), Phase: "running"}
	r := &resourcepb.Resource{Metadata: m, Spec: &resourcepb.Spec{ProtoSpec: try.content}}
	switch {
	case current == nil:
		answer, err := c.Create(ctx, &resourcepb.CreateRequest{Resource: r})
		return answer.GetResource(), err
	case try.version == "":
		_, err := c.Destroy(ctx, &resourcepb.DestroyRequest{Namespace: w.namespace, Type: w.typ, Id: try.id})
		return nil, err
	default:
		answer, err := c.Update(ctx, &resourcepb.UpdateRequest{NewResource: r})
		return answer.GetResource(), err
	}
}

// compare takes the writer's resources out of those that there are. What the last attempt would have made is as good as what was before it.
func (w *writer) compare(there map[string]*resourcepb.Resource) error {
	for _, id := range w.ids {
		got, known := there[id], w.known[id]
		delete(there, id)
		if same(got, known) {
			continue
		}
		if w.last == nil || w.last.id != id || !w.last.made(got) {
			return fmt.Errorf("%s/%s is %.300s; acknowledged was %.300s, the last attempt %.300s", w.typ, id, got, known, fmt.Sprintf("%+v", w.last))
		}
		w.know(id, got)
	}
	w.last = nil
	return nil
}

// same says whether two resources are, to the letter. The YAML form is made for those who read.
func same(a, b *resourcepb.Resource) bool {
	return (a == nil) == (b == nil) && proto.Equal(a.GetMetadata(), b.GetMetadata()) && bytes.Equal(a.GetSpec().GetProtoSpec(), b.GetSpec().GetProtoSpec())
}

// made says whether r is exactly what the attempt would have made.
func (a *attempt) made(r *resourcepb.Resource) bool {
	if r == nil || a.version == "" {
		return r == nil && a.version == ""
	}
	return r.GetMetadata().GetVersion() == a.version && bytes.Equal(r.GetSpec().GetProtoSpec(), a.content)
}
