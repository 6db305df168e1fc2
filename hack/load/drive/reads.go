package drive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
)

// Many is how many resources are listed.
const Many = 10_000

// rare is the share of resources, one in so many, that the label query selects.
const rare = 100

// Reads is what listing costs the server.
type Reads struct {
	List  time.Duration // of Many resources
	Query time.Duration // by a label that one in a hundred of them has
}

// Reads lists Many resources, all of them and those with a label.
func (s *Server) Reads(ctx context.Context) (r Reads, err error) {
	kind := s.newKind()
	if err := s.fill(ctx, kind, Many, func(i int, r *resourcepb.Resource) {
		r.Metadata.Labels = map[string]string{"group": fmt.Sprint(i % (Many / rare))}
	}); err != nil {
		return r, err
	}
	if r.List, err = s.lists(ctx, 30, Many, &resourcepb.ListRequest{Namespace: namespace, Type: kind}); err != nil {
		return r, err
	}
	term := &resourcepb.LabelTerm{Key: "group", Op: resourcepb.LabelTerm_EQUAL, Value: []string{"7"}}
	r.Query, err = s.lists(ctx, 500, Many/rare, &resourcepb.ListRequest{Namespace: namespace, Type: kind, Options: &resourcepb.ListOptions{
		LabelQuery: []*resourcepb.LabelQuery{{Terms: []*resourcepb.LabelTerm{term}}},
	}})
	if err != nil {
		return r, err
	}
	return r, s.empty(ctx, kind, Many)
}

// lists asks n times and returns what one answer costs the server. It fails when that does not hold so many resources.
func (s *Server) lists(ctx context.Context, n, want int, q *resourcepb.ListRequest) (time.Duration, error) {
	if err := s.list(ctx, want, q); err != nil { // whatever is built for the first
		return 0, err
	}
	cpu, _, err := s.process.cost(func() error {
		for range n {
			if err := s.list(ctx, want, q); err != nil {
				return err
			}
		}
		return nil
	})
	return cpu / time.Duration(n), err
}

func (s *Server) list(ctx context.Context, want int, q *resourcepb.ListRequest) error {
	stream, err := s.client(0).List(ctx, q)
	if err != nil {
		return err
	}
	for got := 0; ; got++ {
		switch _, err := stream.Recv(); {
		case errors.Is(err, io.EOF) && got == want:
			return nil
		case errors.Is(err, io.EOF):
			return fmt.Errorf("the list has %d resources; want %d", got, want)
		case err != nil:
			return err
		}
	}
}
