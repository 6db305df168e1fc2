package sdk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pluginpb "github.com/cosi-os/cosi/api/cosi/plugin/v1alpha1"
)

// drainTime is how long a plugin may take to let go when the runtime names no deadline.
const drainTime = 10 * time.Second

// errDrained ends the sessions: the runtime asked for it.
var errDrained = errors.New("drained")

// sessions holds a session with the runtime for as long as there is one, and begins the next when it ends. drain is called once
// when the runtime asks for it; sessions then returns nil.
func (r *runner) sessions(ctx context.Context, drain func(deadline time.Time)) error {
	var retry backoff
	var said lastError
	for {
		err := r.session(ctx, drain, func() { retry.succeeded(); said.clear() })
		switch code := status.Code(err); {
		case errors.Is(err, errDrained):
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case code == codes.PermissionDenied || code == codes.InvalidArgument || code == codes.Unimplemented:
			return fmt.Errorf("register: %w", err)
		}
		said.log("runtime", err)
		if !sleep(ctx, retry.failed()) {
			return ctx.Err()
		}
		r.conn.ResetConnectBackoff()
	}
}

// session registers, watches all kinds and answers the runtime until the stream ends.
func (r *runner) session(ctx context.Context, drain func(time.Time), registered func()) error {
	ctx, cancel := context.WithCancel(ctx)
	var tasks sync.WaitGroup
	defer tasks.Wait()
	defer cancel()
	stream, err := r.register(ctx)
	if err != nil {
		return err
	}
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	if first.GetRegistered() == nil {
		return errors.New("the runtime's first message is not Registered")
	}
	registered()
	ready := r.begin(first.GetRegistered().GetEpoch())
	for _, c := range r.caches {
		if !c.events {
			tasks.Go(func() { r.watch(ctx, c) })
		}
	}
	drains, ended := make(chan *pluginpb.Drain, 1), make(chan error, 1)
	tasks.Go(func() { ended <- receive(stream, drains) })
	for {
		select {
		case <-ready:
			ready = nil
			if err := stream.Send(&pluginpb.SessionRequest{Message: &pluginpb.SessionRequest_Ready{Ready: &pluginpb.Ready{}}}); err != nil {
				return <-ended // says why
			}
		case err := <-ended:
			return err
		case d := <-drains:
			drain(deadline(d))
			return drained(stream, ended)
		}
	}
}

// register opens the stream, as soon as there is a runtime, and says who the plugin is.
func (r *runner) register(ctx context.Context) (pluginpb.Plugin_SessionClient, error) {
	stream, err := pluginpb.NewPluginClient(r.conn).Session(ctx, grpc.WaitForReady(true))
	if err != nil {
		return nil, err
	}
	message := &pluginpb.Register{Name: r.name, Version: r.version}
	for _, l := range r.loops {
		c := &pluginpb.Controller{Name: l.Name}
		for _, typ := range l.Inputs {
			c.Inputs = append(c.Inputs, &pluginpb.Input{Type: typ, Finalizers: r.declaration.Finalizes(typ)})
		}
		for _, typ := range l.state.outputs {
			c.Outputs = append(c.Outputs, &pluginpb.Output{Type: typ})
		}
		message.Controllers = append(message.Controllers, c)
	}
	// An error of Send says only that the stream has ended; Recv says why.
	_ = stream.Send(&pluginpb.SessionRequest{Message: &pluginpb.SessionRequest_Register{Register: message}})
	return stream, nil
}

// receive passes on the first Drain, and returns what ended the stream.
func receive(stream pluginpb.Plugin_SessionClient, drains chan<- *pluginpb.Drain) error {
	for {
		message, err := stream.Recv()
		if err == io.EOF {
			return errors.New("the runtime has closed the session")
		}
		if err != nil {
			return err
		}
		if d := message.GetDrain(); d != nil {
			select {
			case drains <- d:
			default: // the runtime repeats itself
			}
		}
	}
}

// drained says that the plugin has let go, and waits a moment for the runtime to have heard it.
func drained(stream pluginpb.Plugin_SessionClient, ended <-chan error) error {
	_ = stream.Send(&pluginpb.SessionRequest{Message: &pluginpb.SessionRequest_Drained{Drained: &pluginpb.Drained{}}})
	_ = stream.CloseSend()
	select {
	case <-ended:
	case <-time.After(time.Second):
	}
	return errDrained
}

func deadline(d *pluginpb.Drain) time.Time {
	if d.GetDeadline() == nil {
		return time.Now().Add(drainTime)
	}
	return d.GetDeadline().AsTime()
}
