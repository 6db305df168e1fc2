package kills

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"strconv"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
)

// watcher follows a kind across the lives of the runtime by its bookmark, and holds every event against the one before it.
type watcher struct {
	namespace string
	typ       string
	bookmark  []byte
	there     map[string]string // versions by id
	events    int
}

// watch follows until the runtime is gone or, if until is given, until exactly that is there.
func (w *watcher) watch(ctx context.Context, c state, until map[string]string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := c.Watch(ctx, &resourcepb.WatchRequest{Namespace: w.namespace, Type: w.typ, ApiVersion: 1, Options: &resourcepb.WatchOptions{
		BootstrapContents: w.bookmark == nil, StartFromBookmark: w.bookmark, Aggregated: true,
	}}, grpc.WaitForReady(until != nil))
	for err == nil {
		if until != nil && w.bookmark != nil && maps.Equal(w.there, until) {
			return nil
		}
		var answer *resourcepb.WatchResponse
		if answer, err = stream.Recv(); err != nil {
			break
		}
		for _, e := range answer.GetEvent() {
			if err := w.see(e); err != nil {
				return fmt.Errorf("watch of %s: %w", w.typ, err)
			}
		}
	}
	if code := status.Code(err); until == nil && (errors.Is(err, io.EOF) || code == codes.Unavailable || code == codes.Canceled) {
		return nil
	}
	return fmt.Errorf("watch of %s from bookmark %x: %w; it has %v and waits for %v", w.typ, w.bookmark, err, w.there, until)
}

// see checks that e is what comes after all that was seen: each version follows the one before it, and each bookmark is later.
func (w *watcher) see(e *resourcepb.Event) error {
	m := e.GetResource().GetMetadata()
	had, is := w.there[m.GetId()], m.GetVersion()
	before, _ := strconv.Atoi(had)
	first := w.bookmark == nil
	switch e.GetEventType() {
	case resourcepb.EventType_BOOTSTRAPPED:
	case resourcepb.EventType_CREATED:
		if had != "" || is != "1" && !first {
			return fmt.Errorf("%s is created at version %s; it was at %q", m.GetId(), is, had)
		}
		w.there[m.GetId()] = is
	case resourcepb.EventType_UPDATED:
		if had == "" || is != strconv.Itoa(before+1) || e.GetOld().GetMetadata().GetVersion() != had {
			return fmt.Errorf("%s is updated to version %s from %s; it was at %q", m.GetId(), is, e.GetOld().GetMetadata().GetVersion(), had)
		}
		w.there[m.GetId()] = is
	case resourcepb.EventType_DESTROYED:
		if had == "" || is != had {
			return fmt.Errorf("%s is destroyed at version %s; it was at %q", m.GetId(), is, had)
		}
		delete(w.there, m.GetId())
	default:
		return fmt.Errorf("%v: %s", e.GetEventType(), e.GetError())
	}
	if first && e.GetBookmark() == nil {
		return nil // the contents
	}
	if bytes.Compare(e.GetBookmark(), w.bookmark) <= 0 {
		return fmt.Errorf("bookmark %x follows %x", e.GetBookmark(), w.bookmark)
	}
	w.bookmark = e.GetBookmark()
	w.events++
	return nil
}
