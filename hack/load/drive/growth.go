package drive

import (
	"context"
	"fmt"
	"math"

	"google.golang.org/protobuf/proto"

	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
)

// growth is how much more an operation may cost a large server before we say that it grows: two rounds of the same differ by as much.
const growth = 1.25

// Growth measures what an operation at 16 workers costs a server that holds nothing, one that has had Large resources of the kind, and one
// that has them, which it then keeps. The limit of resources of a kind must leave room for more.
func (s *Server) Growth(ctx context.Context, name string) (figures []Figure, kind string, err error) {
	kind = s.newKind()
	operations := []Operation{Create, Get, Update, Destroy}
	few, err := s.medianOf(ctx, kind, 16, operations...)
	if err != nil {
		return nil, "", err
	}
	if err := s.fill(ctx, kind, Large, nil); err != nil {
		return nil, "", err
	}
	if err := s.empty(ctx, kind, Large); err != nil {
		return nil, "", err
	}
	past, err := s.medianOf(ctx, kind, 16, operations...)
	if err != nil {
		return nil, "", err
	}
	if err := s.fill(ctx, kind, Large, nil); err != nil {
		return nil, "", err
	}
	many, err := s.medianOf(ctx, kind, 16, operations...)
	if err != nil {
		return nil, "", err
	}
	for i, o := range operations {
		title := fmt.Sprintf("%s %s at 16, server CPU", name, o)
		alone := microseconds(few[i].CPU)
		figures = append(figures,
			Figure{Name: title + ", alone", Measured: alone, Unit: "µs"},
			Figure{Name: fmt.Sprintf("%s, after %d writes", title, 2*Large), Measured: microseconds(past[i].CPU), Unit: "µs", Target: math.Round(10*growth*alone) / 10},
			Figure{Name: fmt.Sprintf("%s, among %d", title, Large), Measured: microseconds(many[i].CPU), Unit: "µs", Target: math.Round(10*growth*alone) / 10})
	}
	return figures, kind, nil
}

// Large is how many resources a large server holds.
const Large = 100_000

// Encoded returns how large the Large resources of a kind are, encoded.
func (s *Server) Encoded(ctx context.Context, kind string) (bytes int, err error) {
	r, err := s.client(0).Get(ctx, &resourcepb.GetRequest{Namespace: namespace, Type: kind, Id: name(0)})
	return Large * proto.Size(r.GetResource()), err
}

// Holds fails unless the server has what Grow made.
func (s *Server) Holds(ctx context.Context, kind string) error {
	_, err := s.client(0).Get(ctx, &resourcepb.GetRequest{Namespace: namespace, Type: kind, Id: name(Large - 1)})
	return err
}

// Memory returns how much memory the server has, its files left out.
func (s *Server) Memory() (bytes int64, err error) { return s.process.memory() }
