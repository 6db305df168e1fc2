package client

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"google.golang.org/protobuf/reflect/protoreflect"

	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	"github.com/cosi-os/cosi/api/kinds"
)

// Convergence is the beginning of every observed kind.
type Convergence struct {
	ObservedVersion string
	Ready           bool
	Reason, Message string
}

func (c Convergence) String() string {
	switch {
	case c.Message != "" && c.Reason != "":
		return c.Reason + ": " + c.Message
	case c.Message != "" || c.Reason != "":
		return c.Reason + c.Message
	case c.ObservedVersion == "":
		return "no status yet"
	}
	return "observed version " + c.ObservedVersion
}

// TimeoutError says that a resource had not converged when the time was over.
type TimeoutError struct {
	Kind *kinds.Kind
	ID   string
	Last Convergence
}

func (e *TimeoutError) Error() string {
	return fmt.Sprintf("%s/%s is not ready: %s", e.Kind.Singular(), e.ID, e.Last)
}

// Timeout makes it a timeout to whoever asks errors in the way of package net.
func (e *TimeoutError) Timeout() bool { return true }

// RefusedError says that a resource will not converge, whatever time passes: somebody has to change it.
type RefusedError struct {
	Kind *kinds.Kind
	ID   string
	Last Convergence
}

func (e *RefusedError) Error() string {
	return fmt.Sprintf("%s/%s: %s", e.Kind.Singular(), e.ID, e.Last)
}

// refused is the reason of what will not be done: a ShutdownRequest that an inhibitor blocks, for example.
const refused = "Refused"

// Wait waits until the observed kind of k shows that version of the resource id as ready. A kind without an observed kind is ready at
// once. Where it is refused the error is a *RefusedError. When ctx's deadline ends first it is a *TimeoutError with the last status.
func (c *Client) Wait(ctx context.Context, k *kinds.Kind, id, version string) error {
	observedType := k.Definition.GetObservedType()
	if observedType == "" {
		return nil
	}
	observed, err := c.Kind(ctx, observedType)
	if err != nil {
		return err
	}
	var last Convergence
	err = c.Watch(ctx, observed, id, nil, func(event *resourcepb.Event) error {
		if event.GetEventType() == resourcepb.EventType_DESTROYED {
			last = Convergence{}
			return nil
		}
		last, err = ReadConvergence(observed, event.GetResource())
		if err != nil {
			return err
		}
		switch {
		case older(last.ObservedVersion, version):
			return nil
		case last.Ready:
			return ErrStop
		case last.Reason == refused:
			return &RefusedError{Kind: k, ID: id, Last: last}
		}
		return nil
	})
	// The node knows the deadline too, and may be the first to say that it is over.
	if err != nil && (errors.Is(ctx.Err(), context.DeadlineExceeded) || errors.Is(err, context.DeadlineExceeded)) {
		return &TimeoutError{Kind: k, ID: id, Last: last}
	}
	return err
}

// older compares versions, which are decimal; what is no number is older than everything.
func older(observed, wanted string) bool {
	have, err := strconv.ParseUint(observed, 10, 64)
	if err != nil {
		return true
	}
	want, err := strconv.ParseUint(wanted, 10, 64)
	return err == nil && have < want
}

// ReadConvergence reads how far r, of the observed kind k, has come.
func ReadConvergence(k *kinds.Kind, r *resourcepb.Resource) (Convergence, error) {
	m, err := k.Unmarshal(r.GetSpec().GetProtoSpec())
	if err != nil {
		return Convergence{}, err
	}
	text := func(name protoreflect.Name) string {
		if field := m.Descriptor().Fields().ByName(name); field != nil && field.Kind() == protoreflect.StringKind && !field.IsList() {
			return m.Get(field).String()
		}
		return ""
	}
	ready := m.Descriptor().Fields().ByName("ready")
	return Convergence{
		ObservedVersion: text("observed_version"), Reason: text("reason"), Message: text("message"),
		Ready: ready != nil && ready.Kind() == protoreflect.BoolKind && m.Get(ready).Bool(),
	}, nil
}
