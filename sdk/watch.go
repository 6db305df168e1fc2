package sdk

import (
	"context"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
)

// watch keeps c what the runtime holds, until ctx is done.
func (r *runner) watch(ctx context.Context, c *cache) {
	var retry backoff
	var said lastError
	for {
		err := r.watchOnce(ctx, c, func() { retry.succeeded(); said.clear() })
		if ctx.Err() != nil {
			return
		}
		switch code := status.Code(err); {
		case code == codes.FailedPrecondition && c.expired():
			// The next watch brings the whole contents.
		case code == codes.ResourceExhausted, code == codes.Unavailable:
			// We were too slow and go on from the bookmark; or the runtime is away, which the session says.
		default:
			said.log("watch "+c.typ, err)
		}
		if !sleep(ctx, retry.failed()) {
			return
		}
	}
}

// watchOnce is one stream. It returns what ended it.
func (r *runner) watchOnce(ctx context.Context, c *cache, established func()) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	bookmark := c.start()
	stream, err := resourcepb.NewStateClient(r.conn).Watch(ctx, &resourcepb.WatchRequest{
		Namespace: c.namespace, Type: c.typ, ApiVersion: 1,
		Options: &resourcepb.WatchOptions{Aggregated: true, BootstrapContents: bookmark == nil, StartFromBookmark: bookmark},
	})
	if err != nil {
		return err
	}
	if _, err := stream.Recv(); err != nil {
		return err
	}
	established()
	if c.established() {
		r.ring(c.typ, life)
	}
	for {
		message, err := stream.Recv()
		if err != nil {
			return err
		}
		seen := unchanged
		for _, event := range message.GetEvent() {
			seen = max(seen, c.apply(event))
		}
		r.ring(c.typ, seen)
	}
}
