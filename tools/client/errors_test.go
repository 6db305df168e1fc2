package client

import (
	"context"
	"errors"
	"testing"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func TestExplainSpeaksPlainly(t *testing.T) {
	withFields, err := status.New(codes.InvalidArgument, "spec.target: x (and 1 more)").WithDetails(&errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{
		{Field: "spec.target", Description: "must be below /var"}, {Field: "spec.flags[1]", Description: "is not a flag"},
	}})
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		err  error
		want string
	}{
		{withFields.Err(), "the node refuses the resource\n  spec.target: must be below /var\n  spec.flags[1]: is not a flag"},
		{status.Error(codes.NotFound, "config/MountPoints/data: not found"), "config/MountPoints/data: not found"},
		{status.Error(codes.PermissionDenied, "role reader may not write"), "not allowed: role reader may not write"},
		{status.Error(codes.Internal, "boom"), "the node failed: boom (Internal)"},
		{status.Error(codes.Unavailable, `connection error: desc = "transport: Error while dialing: dial tcp 127.0.0.1:1: connect: connection refused"`),
			"the node cannot be reached: dial tcp 127.0.0.1:1: connect: connection refused"},
		{status.Error(codes.Unavailable, `connection error: desc = "transport: failed to write client preface: write unix @->/s: write: broken pipe"`),
			"the node cannot be reached: the socket serves only the user who started the node: failed to write client preface: write unix @->/s: write: broken pipe"},
		{errors.New("plain"), "plain"},
	} {
		got := Explain(test.err)
		if got.Error() != test.want {
			t.Errorf("Explain(%v) = %q; want %q", test.err, got, test.want)
		}
		if again := Explain(got); again != got {
			t.Errorf("Explain twice: %v", again)
		}
	}
	if Explain(nil) != nil || Code(nil) != codes.OK {
		t.Error("no error became one")
	}
	if err := Explain(status.Error(codes.DeadlineExceeded, "x")); !errors.Is(err, context.DeadlineExceeded) || Code(err) != codes.DeadlineExceeded {
		t.Errorf("%v is no deadline", err)
	}
}
