package output

import (
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/cosi-os/cosi/engine/wire"
)

// Streams of a line.
const (
	Stdout = "stdout"
	Stderr = "stderr"
)

// Log takes lines of all processes. Its methods may be called by several goroutines.
type Log struct {
	consoles []*Console
	// Changed holds a token after a line was added. It has one reader.
	changed chan struct{}

	mu    sync.Mutex // guards the fields below
	rings map[string]*ring
	names []string // of rings, by first line
	shown []string // the status on the consoles
}

// NewLog returns a Log that shows its lines on the consoles.
func NewLog(consoles ...*Console) *Log {
	return &Log{consoles: consoles, changed: make(chan struct{}, 1), rings: map[string]*ring{}}
}

// Line keeps a line of a process and prints it as "NAME: LINE".
func (l *Log) Line(name, stream, line string) {
	l.Keep(wire.Output{Name: name, Stream: stream, At: time.Now(), Line: line})
	l.print(name + ": " + line)
}

// Printf is a line of the engine itself.
func (l *Log) Printf(format string, args ...any) {
	l.Line("engine", Stderr, fmt.Sprintf(format, args...))
}

// Keep puts a line into its ring only.
func (l *Log) Keep(line wire.Output) {
	l.mu.Lock()
	r := l.rings[line.Name]
	if r == nil {
		r = &ring{}
		l.rings[line.Name] = r
		l.names = append(l.names, line.Name)
	}
	r.add(line)
	l.mu.Unlock()
	select {
	case l.changed <- struct{}{}:
	default:
	}
}

// Copy reads lines of a process until r ends. It never waits for a console or the runtime.
func (l *Log) Copy(name, stream string, r io.Reader) {
	lines(r, func(line string) { l.Line(name, stream, line) })
}

// Changed has a token after new lines. One goroutine at a time may wait for it.
func (l *Log) Changed() <-chan struct{} { return l.changed }

// Next returns some lines that the cursors have not passed, and moves them; none when all were seen. Lines that left their ring
// before they were read are missing: the sequence numbers show it.
func (l *Log) Next(cursors map[string]uint64) []wire.Output {
	const batch = 64
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, name := range l.names {
		if some := l.rings[name].after(cursors[name], batch); len(some) > 0 {
			cursors[name] = some[len(some)-1].Sequence
			return slices.Clone(some)
		}
	}
	return nil
}

// statusLines is how long a status may be.
const statusLines = 10

// Status replaces the status on the consoles: at most ten lines, printed as they are, and only if they have changed.
func (l *Log) Status(status []string) {
	status = slices.Clone(status[:min(len(status), statusLines)])
	l.mu.Lock()
	same := slices.Equal(status, l.shown)
	l.shown = status
	l.mu.Unlock()
	if !same {
		l.print(status...)
	}
}

func (l *Log) print(text ...string) {
	for _, c := range l.consoles {
		c.print(text...)
	}
}
