package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/reflect/protoreflect"

	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	"github.com/cosi-os/cosi/api/document"
	"github.com/cosi-os/cosi/api/kinds"
	"github.com/cosi-os/cosi/tools/client"
	"github.com/cosi-os/cosi/tools/internal/commandline"
)

const (
	logsKind   = "Logs.service.cosi.dev"
	formatText = "text"
)

type logsCommand struct {
	*app
	format string
	follow bool
	tail   int32

	now  *resourcepb.Resource // the last line when the command began: where the past ends
	last time.Time            // of the last line that was printed
}

func newLogs(a *app) *cobra.Command {
	l := &logsCommand{app: a}
	cmd := &cobra.Command{
		Use:   "logs NAME",
		Short: "Print what a process of the node has printed",
		Long:  `Print the last lines of a process of the node: engine, runtime, kernel, or a plugin. "cosictl get logs" lists them.`,
		Example: `  cosictl logs engine
  cosictl logs mount -f
  cosictl logs network --tail 5 -o json`,
		Args:              commandline.Arguments(1, 1),
		ValidArgsFunction: a.completeIDs(logsKind),
		RunE:              a.withClient(l.run),
	}
	commandline.AddOutput(cmd, &l.format, formatText, formatJSON)
	cmd.Flags().BoolVarP(&l.follow, "follow", "f", false, "go on with new lines")
	cmd.Flags().Int32Var(&l.tail, "tail", 200, "begin with the last `N` lines")
	return cmd
}

func (l *logsCommand) run(ctx context.Context, c *client.Client, args []string) error {
	if l.tail < 0 {
		return commandline.Usagef("--tail %d: must not be negative", l.tail)
	}
	k, err := c.Kind(ctx, logsKind)
	if err != nil {
		return err
	}
	// Every line is a version of the resource.
	l.now, err = c.Get(ctx, k, args[0])
	if client.Code(err) == codes.NotFound && !l.follow {
		return fmt.Errorf("%s has printed nothing, or there is no such process ('cosictl get logs' lists them)", args[0])
	}
	if err != nil && client.Code(err) != codes.NotFound {
		return err
	}
	if l.tail == 0 && !l.follow {
		return nil
	}
	for {
		err = c.Watch(ctx, k, args[0], &resourcepb.WatchOptions{TailEvents: l.tail, Aggregated: true}, func(e *resourcepb.Event) error {
			return l.event(k, e)
		})
		if !l.follow || !client.Lost(err) && client.Code(err) != codes.NotFound || ctx.Err() != nil {
			return interrupted(ctx, err)
		}
		l.again(ctx, err)
	}
}

// catchUp is how many lines are looked at again after the connection was lost. Those that were printed are left out by their time:
// numbers and versions begin anew when the node does.
const catchUp = 1000

// again prepares the next try. It says only once that the connection is lost.
func (l *logsCommand) again(ctx context.Context, err error) {
	if l.now != nil || l.tail != catchUp {
		fmt.Fprintf(l.err, "cosictl: %v: trying again\n", err)
	}
	l.now, l.tail = nil, catchUp
	select {
	case <-ctx.Done():
	case <-time.After(time.Second):
	}
}

func (l *logsCommand) event(k *kinds.Kind, e *resourcepb.Event) error {
	switch e.GetEventType() {
	case resourcepb.EventType_CREATED, resourcepb.EventType_UPDATED:
	default:
		return nil
	}
	past := version(e.GetResource()) <= version(l.now)
	if l.tail > 0 || !past {
		if err := l.print(k, e.GetResource()); err != nil {
			return err
		}
	}
	if !l.follow && version(e.GetResource()) >= version(l.now) {
		return client.ErrStop
	}
	return nil
}

func (l *logsCommand) print(k *kinds.Kind, r *resourcepb.Resource) error {
	m, err := k.Unmarshal(r.GetSpec().GetProtoSpec())
	if err != nil {
		return err
	}
	at := timeOf(m)
	if l.now == nil && !at.IsZero() && !at.After(l.last) {
		return nil // printed before the connection was lost
	}
	l.last = at
	if l.format == formatJSON {
		n, err := kinds.EncodeNode(m)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintln(l.out, string(document.JSON(n)))
		return err
	}
	field := m.Descriptor().Fields().ByName("line")
	if field == nil || field.Kind() != protoreflect.StringKind {
		return errors.New("the node's log lines have no field line")
	}
	_, err = fmt.Fprintln(l.out, m.Get(field).String())
	return err
}

// timeOf is the time of a line; zero without one.
func timeOf(m protoreflect.Message) time.Time {
	field := m.Descriptor().Fields().ByName("time")
	if field == nil || field.Message() == nil || !m.Has(field) {
		return time.Time{}
	}
	n, err := kinds.EncodeNode(m.Get(field).Message())
	if err != nil {
		return time.Time{}
	}
	t, err := time.Parse(time.RFC3339Nano, n.Value)
	if err != nil {
		return time.Time{}
	}
	return t
}

// version is a resource's version as a number; 0 without one.
func version(r *resourcepb.Resource) uint64 {
	n, err := strconv.ParseUint(r.GetMetadata().GetVersion(), 10, 64)
	if err != nil {
		return 0
	}
	return n
}
