package server

import (
	"google.golang.org/grpc"

	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	"github.com/cosi-os/cosi/engine/runtime/state"
)

// maxFrame is where an aggregated message ends, so that clients with gRPC's default limit can read it. A single event may be longer.
const maxFrame = MaxMessage - 1<<20

// Watch streams changes. The first message is empty: the watch is established. That and the events that it begins with are sent aside, so
// that a watch for which nothing happens afterwards has a small stack.
func (s *Server) Watch(q *resourcepb.WatchRequest, stream grpc.ServerStreamingServer[resourcepb.WatchResponse]) error {
	ctx := stream.Context()
	st, err := s.states(ctx)
	if err != nil {
		return Status(err)
	}
	w, err := st.Watch(ctx, watchRequest(q))
	if err != nil {
		return Status(err)
	}
	if err := aside(func() error { return stream.SendMsg(frame{}) }); err != nil {
		return err
	}
	sender := &sender{stream: stream, encoder: s.encoder, aggregated: q.GetOptions().GetAggregated(), old: q.GetApiVersion() < 1}
	first := func(events []*state.Event) error { return aside(func() error { return sender.send(events) }) }
	for send := first; ; send = sender.send {
		events, err := w.Next(ctx)
		if err != nil {
			return Status(err)
		}
		if err := send(events); err != nil {
			return err
		}
	}
}

func watchRequest(q *resourcepb.WatchRequest) state.WatchRequest {
	o := q.GetOptions()
	w := state.WatchRequest{
		Kind:              state.Kind{Namespace: q.GetNamespace(), Type: q.GetType()},
		ID:                q.Id,
		Query:             state.Query{Labels: o.GetLabelQuery(), IDRegexp: o.GetIdQuery().GetRegexp()},
		BootstrapContents: o.GetBootstrapContents(),
		BootstrapBookmark: o.GetBootstrapBookmark(),
		TailEvents:        int(o.GetTailEvents()),
	}
	if o != nil {
		w.Bookmark = o.StartFromBookmark // not the getter: an empty bookmark is a bad one, not none
	}
	return w
}

// sender writes events to a stream.
type sender struct {
	stream     grpc.ServerStream
	encoder    *encoder
	aggregated bool // several events a message
	old        bool // the client does not know BOOTSTRAPPED and ERRORED
}

func (s *sender) send(events []*state.Event) error {
	var f frame
	for _, e := range events {
		if t := e.GetEventType(); s.old && (t == resourcepb.EventType_BOOTSTRAPPED || t == resourcepb.EventType_ERRORED) {
			continue
		}
		data, err := s.encoder.encode(e)
		if err != nil {
			return Status(err)
		}
		if f.size > 0 && (!s.aggregated || f.size+len(data) > maxFrame) {
			if err := s.stream.SendMsg(f); err != nil {
				return err
			}
			f = frame{}
		}
		f.add(data)
	}
	if f.size == 0 {
		return nil
	}
	return s.stream.SendMsg(f)
}
