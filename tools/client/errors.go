package client

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/cosi-os/cosi/api/kinds"
)

// Error is what a node answered, in words. The gRPC error is inside.
type Error struct {
	// Message is a sentence without a full stop.
	Message string
	// Fields are what is wrong with the fields of the resource that was sent.
	Fields []Field
	Code   codes.Code

	err error
}

// Field is one thing wrong with one field.
type Field struct{ Path, Message string }

func (e *Error) Error() string {
	lines := []string{e.Message}
	for _, f := range e.Fields {
		lines = append(lines, f.Path+": "+f.Message)
	}
	return strings.Join(lines, "\n  ")
}

func (e *Error) Unwrap() error { return e.err }

// Code returns the gRPC code of an error of this package or of gRPC.
func Code(err error) codes.Code {
	var explained *Error
	if errors.As(err, &explained) {
		return explained.Code
	}
	return status.Code(err)
}

// Explain turns an error of the generated client into an *Error. What is no gRPC error stays as it is.
func Explain(err error) error {
	if err == nil {
		return nil
	}
	var done *Error
	if errors.As(err, &done) {
		return err
	}
	s, ok := status.FromError(err)
	if !ok {
		return err
	}
	e := &Error{Message: sentence(s), Code: s.Code(), err: err}
	switch s.Code() {
	case codes.DeadlineExceeded:
		e.err = errors.Join(err, context.DeadlineExceeded)
	case codes.Canceled:
		e.err = errors.Join(err, context.Canceled)
	}
	for _, detail := range s.Details() {
		bad, ok := detail.(*errdetails.BadRequest)
		if !ok {
			continue
		}
		for _, violation := range bad.GetFieldViolations() {
			e.Fields = append(e.Fields, Field{Path: violation.GetField(), Message: violation.GetDescription()})
		}
	}
	if len(e.Fields) > 0 {
		// The message of such an answer repeats the first field.
		e.Message = "the node refuses the resource"
	}
	return e
}

// explainFor is Explain for a call about one resource, which it names the way people do.
func explainFor(k *kinds.Kind, id string, err error) error {
	err = Explain(err)
	var explained *Error
	if errors.As(err, &explained) && explained.Code == codes.NotFound {
		explained.Message = fmt.Sprintf("%s/%s does not exist", k.Singular(), id)
	}
	return err
}

func sentence(s *status.Status) string {
	message := s.Message()
	switch s.Code() {
	case codes.Unavailable:
		return "the node cannot be reached: " + plainUnavailable(message)
	case codes.DeadlineExceeded:
		return "the time is over: " + message
	case codes.Canceled:
		return "interrupted"
	case codes.NotFound, codes.AlreadyExists, codes.InvalidArgument, codes.FailedPrecondition, codes.ResourceExhausted:
		return message
	case codes.PermissionDenied:
		return "not allowed: " + message
	case codes.Unauthenticated:
		return "the node does not know this client: " + message
	case codes.Unimplemented:
		return "the node does not support this: " + message
	}
	return fmt.Sprintf("the node failed: %s (%s)", message, s.Code())
}

// plainUnavailable strips what gRPC wraps around the reason and adds a hint where there is one.
func plainUnavailable(message string) string {
	for _, prefix := range []string{
		"connection error: desc = ", "last connection error: ", "name resolver error: ", "transport: ", "authentication handshake failed: ", "Error while dialing: ",
	} {
		if _, after, ok := strings.Cut(message, prefix); ok {
			message = strings.Trim(after, `"`)
		}
	}
	message = strings.ReplaceAll(message, `\"`, `"`)
	for _, hint := range []struct{ part, hint string }{
		{"certificate required", "the node wants a client certificate"},
		{"bad certificate", "the node refuses the client certificate: it has expired (cosictl gen renew), is of another CA, or revoked"},
		{"unknown certificate authority", "the node refuses the client certificate: it is of another CA"},
		{"expired certificate", "the node refuses the client certificate: it has expired (cosictl gen renew)"},
		{"write unix", "the socket serves only the user who started the node"},
		{"certificate has expired", "the node's certificate has expired (cosictl gen renew --apply)"},
	} {
		if strings.Contains(message, hint.part) {
			return hint.hint + ": " + message
		}
	}
	return message
}
