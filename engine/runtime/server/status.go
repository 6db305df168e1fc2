package server

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"

	"github.com/cosi-os/cosi/engine/runtime/state"
)

// Domain of the google.rpc.ErrorInfo that goes with each error of the service.
const Domain = "cosi.dev"

// answer is how the wire says a sentinel. Several share a code; the reason, in an ErrorInfo, tells them apart.
type answer struct {
	sentinel error
	code     codes.Code
	reason   string
}

// answers is the one table of errors and codes.
var answers = []answer{
	{state.ErrNotFound, codes.NotFound, "NOT_FOUND"},
	{state.ErrExists, codes.AlreadyExists, "EXISTS"},
	{state.ErrOwner, codes.PermissionDenied, "OWNER"},
	{state.ErrConflict, codes.FailedPrecondition, "CONFLICT"},
	{state.ErrPhase, codes.InvalidArgument, "PHASE"},
	{state.ErrFinalizers, codes.FailedPrecondition, "FINALIZERS"},
	{state.ErrInvalid, codes.InvalidArgument, "INVALID"},
	{state.ErrDenied, codes.PermissionDenied, "DENIED"},
	{state.ErrUnimplemented, codes.Unimplemented, "UNIMPLEMENTED"},
	{state.ErrBookmark, codes.FailedPrecondition, "BOOKMARK"},
	{state.ErrSlow, codes.ResourceExhausted, "SLOW"},
	{state.ErrLimit, codes.ResourceExhausted, "LIMIT"},
	{state.ErrFrozen, codes.FailedPrecondition, "FROZEN"},
	{state.ErrNoSpace, codes.ResourceExhausted, "NO_SPACE"},
	{context.Canceled, codes.Canceled, "CANCELED"},
	{context.DeadlineExceeded, codes.DeadlineExceeded, "DEADLINE"},
}

// Status returns err as a gRPC status: the code of the sentinel that it wraps, INTERNAL if there is none, with the field violations of
// FieldErrors. What is a status already stays as it is.
func Status(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := status.FromError(err); ok {
		return err
	}
	for _, a := range answers {
		if errors.Is(err, a.sentinel) {
			details := []protoadapt.MessageV1{&errdetails.ErrorInfo{Reason: a.reason, Domain: Domain}}
			if violations := violations(err); violations != nil {
				details = append(details, &errdetails.BadRequest{FieldViolations: violations})
			}
			return withDetails(status.New(a.code, err.Error()), details)
		}
	}
	return status.Error(codes.Internal, err.Error())
}

// withDetails returns s bare when a detail cannot be encoded, as with a field path that is not UTF-8.
func withDetails(s *status.Status, details []protoadapt.MessageV1) error {
	if full, err := s.WithDetails(details...); err == nil {
		return full.Err()
	}
	return s.Err()
}

func violations(err error) []*errdetails.BadRequest_FieldViolation {
	var all state.FieldErrors
	var one *state.FieldError
	if !errors.As(err, &all) && errors.As(err, &one) {
		all = state.FieldErrors{one}
	}
	var violations []*errdetails.BadRequest_FieldViolation
	for _, e := range all {
		violations = append(violations, &errdetails.BadRequest_FieldViolation{Field: e.Path, Description: e.Message})
	}
	return violations
}

// Error turns what Status made into an error that wraps the sentinel again, for a client in Go. Field violations become FieldErrors.
// A cancelled call wraps the error of its context. Any other error without our ErrorInfo stays as it is.
func Error(err error) error {
	s, ok := status.FromError(err)
	if !ok || err == nil {
		return err
	}
	var reason string
	var fields state.FieldErrors
	for _, detail := range s.Details() {
		switch d := detail.(type) {
		case *errdetails.ErrorInfo:
			if d.GetDomain() == Domain {
				reason = d.GetReason()
			}
		case *errdetails.BadRequest:
			for _, v := range d.GetFieldViolations() {
				fields = append(fields, &state.FieldError{Path: v.GetField(), Message: v.GetDescription()})
			}
		}
	}
	switch s.Code() { // the client itself makes these two, without details
	case codes.Canceled:
		return fmt.Errorf("%w: %w", err, context.Canceled)
	case codes.DeadlineExceeded:
		return fmt.Errorf("%w: %w", err, context.DeadlineExceeded)
	}
	for _, a := range answers {
		if a.reason == reason && len(fields) > 0 {
			return fmt.Errorf("%w: %w", err, fields)
		}
		if a.reason == reason {
			return fmt.Errorf("%w: %w", err, a.sentinel)
		}
	}
	return err
}
