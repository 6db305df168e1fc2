package client

import (
	"context"
	"errors"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	"github.com/cosi-os/cosi/api/kinds"
)

// Lost reports whether a watch ended for a reason that passes: the runtime restarts, the node reboots, the watcher was too slow.
func Lost(err error) bool {
	switch Code(err) {
	case codes.Unavailable, codes.ResourceExhausted:
		return true
	}
	return errors.Is(err, ErrEnded)
}

// Follow is Watch that goes on when the connection is lost, once it stood: after the last event that it saw, if the node still has what followed, and
// else from the beginning. It calls lost with each reason before it tries again; missed says that events may be missing, and that what is
// there comes again.
func (c *Client) Follow(ctx context.Context, k *kinds.Kind, id string, o *resourcepb.WatchOptions, lost func(reason error, missed bool), f func(*resourcepb.Event) error) error {
	options := proto.CloneOf(o)
	var bookmark []byte
	stood := false
	for {
		var failed error // of f, which may look like anything
		err := c.watch(ctx, k, id, options, func() { stood = true }, func(e *resourcepb.Event) error {
			if len(e.GetBookmark()) > 0 {
				bookmark = e.GetBookmark()
			}
			failed = f(e)
			return failed
		})
		expired := len(options.GetStartFromBookmark()) > 0 && bookmark != nil && Code(err) == codes.FailedPrecondition
		if err == nil || failed != nil || !stood || ctx.Err() != nil || !Lost(err) && !expired {
			return err
		}
		options = proto.CloneOf(o)
		if expired || bookmark == nil {
			lost(err, true)
			bookmark = nil
		} else {
			lost(err, false)
			options.BootstrapContents, options.TailEvents, options.BootstrapBookmark = false, 0, false
			options.StartFromBookmark = bookmark
		}
		if expired {
			continue
		}
		select {
		case <-ctx.Done():
		case <-time.After(again):
		}
	}
}

// again is the time between two tries.
const again = time.Second
