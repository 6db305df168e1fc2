package host

import (
	"context"
	"strings"

	servicepb "github.com/cosi-os/cosi/api/cosi/service/v1alpha1"
	"github.com/cosi-os/cosi/engine/runtime/output"
	"github.com/cosi-os/cosi/engine/runtime/state"
	"github.com/cosi-os/cosi/engine/wire"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// LogKind is the kind that holds the lines of processes: one resource a process, each line an update of it.
var LogKind = state.Kind{Namespace: "logs", Type: "Logs.service.cosi.dev"}

// queued lines wait for Run at most. PID 1's own rings are longer, but it sends them only once.
const queued = 4096

// Logs turns output lines into Logs resources.
type Logs struct {
	output output.Writer
	queue  chan *wire.Output
}

// NewLogs returns Logs that write to out.
func NewLogs(out output.Writer) *Logs {
	return &Logs{output: out, queue: make(chan *wire.Output, queued)}
}

// Offer queues a line, or drops it when the queue is full: the gap shows in the sequence. It never blocks.
func (l *Logs) Offer(o *wire.Output) {
	select {
	case l.queue <- o:
	default:
	}
}

// Run writes lines until ctx is done.
func (l *Logs) Run(ctx context.Context) error {
	for {
		select {
		case o := <-l.queue:
			if err := l.output.Append(ctx, state.Pointer{Kind: LogKind, ID: o.Name}, logLine(o)); err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// logLine keeps the fields of a line that is a JSON object. Protobuf strings are UTF-8, what processes print may be anything.
func logLine(o *wire.Output) *servicepb.LogLine {
	line := &servicepb.LogLine{
		Time: timestamppb.New(o.At), Stream: o.Stream, Sequence: o.Sequence, Line: strings.ToValidUTF8(o.Line, "\uFFFD"),
	}
	if strings.HasPrefix(line.Line, "{") {
		fields := &structpb.Struct{}
		if fields.UnmarshalJSON([]byte(line.Line)) == nil {
			line.Fields = fields
		}
	}
	return line
}
