package client

import (
	"context"
	"errors"
	"fmt"
	"io"

	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	"github.com/cosi-os/cosi/api/kinds"
)

// ErrStop is what a callback of Watch returns to end the watch without an error.
var ErrStop = errors.New("stop watching")

// ErrEnded says that the node ended a watch: it goes down, or the watcher was too slow.
var ErrEnded = errors.New("the node ended the watch")

// apiVersion makes the server send BOOTSTRAPPED and ERRORED.
const apiVersion = 1

// Watch calls f with each event until ctx ends, f returns an error (ErrStop: nil), or the node ends the stream. An empty id watches the
// whole kind. f gets the events of resources, BOOTSTRAPPED and NOOP; ERRORED is returned as an error.
func (c *Client) Watch(ctx context.Context, k *kinds.Kind, id string, o *resourcepb.WatchOptions, f func(*resourcepb.Event) error) error {
	return c.watch(ctx, k, id, o, func() {}, f)
}

// watch is Watch that calls established when the node has accepted it.
func (c *Client) watch(ctx context.Context, k *kinds.Kind, id string, o *resourcepb.WatchOptions, established func(), f func(*resourcepb.Event) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	request := &resourcepb.WatchRequest{Namespace: k.Namespace(), Type: k.Type(), Options: o, ApiVersion: apiVersion}
	if id != "" {
		request.Id = &id
	}
	stream, err := c.State.Watch(ctx, request)
	if err != nil {
		return Explain(err)
	}
	for {
		response, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return ErrEnded
		}
		if err != nil {
			return Explain(err)
		}
		established()
		for _, event := range response.GetEvent() {
			if event.GetEventType() == resourcepb.EventType_ERRORED {
				return fmt.Errorf("%w: %s", ErrEnded, event.GetError())
			}
			if err := f(event); errors.Is(err, ErrStop) {
				return nil
			} else if err != nil {
				return err
			}
		}
	}
}
