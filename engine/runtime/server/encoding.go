package server

import (
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/proto" // the codec that all other messages take
	"google.golang.org/grpc/mem"

	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	"github.com/cosi-os/cosi/engine/runtime/state"
	"github.com/cosi-os/cosi/engine/runtime/state/encoded"
)

// MaxMessage is the size of the largest request that is read, and what gRPC clients by default accept as an answer.
const MaxMessage = 4 << 20

// Options are those that a grpc.Server needs to serve a Server: the limit on requests, and the codec that sends events as they were
// encoded for another watcher.
func Options() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.ForceServerCodecV2(codec{encoding.GetCodecV2("proto")}),
		grpc.MaxRecvMsgSize(MaxMessage),
	}
}

// Busy are further options, for a server of which much is asked by clients that make many calls: handlers that stay, so that not every
// call begins with a small stack and grows it. A watch takes one for as long as it lasts; calls that find none get one of their own.
func Busy() []grpc.ServerOption {
	const handlers = 64
	return []grpc.ServerOption{grpc.NumStreamWorkers(handlers)}
}

// codec is the proto codec. It also sends what is listed, and frames, and encodes and decodes resources by hand.
type codec struct{ encoding.CodecV2 }

func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	var r *resourcepb.Resource
	switch v := v.(type) {
	case frame:
		return v.buffers, nil
	case *listed:
		return v.buffers[:], nil
	case *resourcepb.GetResponse:
		r = v.GetResource()
	case *resourcepb.CreateResponse:
		r = v.GetResource()
	case *resourcepb.UpdateResponse:
		r = v.GetResource()
	default:
		return c.CodecV2.Marshal(v)
	}
	data, err := encoded.Answer(r)
	return mem.BufferSlice{mem.SliceBuffer(data)}, err
}

func (c codec) Unmarshal(data mem.BufferSlice, v any) error {
	switch v.(type) {
	case *resourcepb.CreateRequest, *resourcepb.UpdateRequest:
		if encoded.Request(data.Materialize(), v) {
			return nil
		}
	case *resourcepb.WatchRequest:
		return aside(func() error { return c.CodecV2.Unmarshal(data, v) })
	}
	return c.CodecV2.Unmarshal(data, v)
}

// aside calls f on a stack of its own. A stack that had to grow for f stays as large for as long as the watch lasts: Go halves one of which a
// quarter is in use, and what waits for events keeps more than that of 8 KiB.
func aside(f func() error) error {
	done := make(chan error)
	go func() { done <- f() }()
	return <-done
}

// listed is an encoded ListResponse, in one piece of memory with what grpc wants to have it in: there are many.
type listed struct {
	data    mem.SliceBuffer
	buffers [1]mem.Buffer
}

func newListed(data []byte) *listed {
	l := &listed{data: data}
	l.buffers[0] = &l.data
	return l
}

// frame is an encoded WatchResponse: the concatenation of encoded events.
type frame struct {
	buffers mem.BufferSlice
	size    int
}

func (f *frame) add(event []byte) {
	f.buffers = append(f.buffers, mem.SliceBuffer(event))
	f.size += len(event)
}

// The encodings that are kept for other watchers of the same event: those run close behind each other.
const (
	keepEvents = 1024
	keepBytes  = 2 << 20
)

// encoder encodes each event once, as long as its watchers are not too far apart.
type encoder struct {
	mu    sync.Mutex // guards the fields below; held while encoding, because the others wait for the same event
	known map[*state.Event][]byte
	order []*state.Event // oldest first
	bytes int
}

func newEncoder() *encoder { return &encoder{known: map[*state.Event][]byte{}} }

// encode returns e as an element of WatchResponse.event, tag and length included.
func (c *encoder) encode(e *state.Event) ([]byte, error) {
	if e.GetBookmark() == nil { // made for one watcher
		return encoded.Event(e)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if data, ok := c.known[e]; ok {
		return data, nil
	}
	data, err := encoded.Event(e)
	if err != nil {
		return nil, err
	}
	c.known[e] = data
	c.order = append(c.order, e)
	c.bytes += len(data)
	for len(c.order) > keepEvents || c.bytes > keepBytes {
		c.bytes -= len(c.known[c.order[0]])
		delete(c.known, c.order[0])
		c.order[0] = nil
		c.order = c.order[1:]
	}
	return data, nil
}
