package qemu

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
)

// ErrClosed says that QEMU has closed the monitor: it has ended.
var ErrClosed = errors.New("the monitor is closed")

// QMP is a connection to QEMU's monitor (docs/interop/qmp-spec.rst in QEMU's source): JSON, one
// message a line. Its methods may be used by several goroutines.
type QMP struct {
	conn net.Conn
	done chan struct{} // closed when the reader has ended

	mu      sync.Mutex // guards the fields below
	next    int
	pending map[int]chan message
	events  []Event
	changed chan struct{} // closed and replaced at each event
	err     error         // why the reader ended
}

// Event is something that QEMU told by itself.
type Event struct {
	Name string
	Data json.RawMessage
}

// CommandError is QEMU's answer to a command that it could not carry out.
type CommandError struct {
	Class string `json:"class"`
	Desc  string `json:"desc"`
}

func (e *CommandError) Error() string { return e.Desc }

// message is any line from QEMU.
type message struct {
	Greeting json.RawMessage `json:"QMP"`
	ID       int             `json:"id"`
	Return   json.RawMessage `json:"return"`
	Error    *CommandError   `json:"error"`
	Event    string          `json:"event"`
	Data     json.RawMessage `json:"data"`
}

// NewQMP waits for QEMU's greeting on conn and enters command mode. It owns conn from then on.
func NewQMP(ctx context.Context, conn net.Conn) (*QMP, error) {
	q := &QMP{conn: conn, done: make(chan struct{}), pending: map[int]chan message{}, changed: make(chan struct{})}
	greeted := make(chan struct{})
	go q.read(greeted)
	select {
	case <-greeted:
	case <-q.done:
		return nil, fmt.Errorf("monitor: %w", q.failure())
	case <-ctx.Done():
		q.Close()
		return nil, fmt.Errorf("monitor: no greeting: %w", ctx.Err())
	}
	if err := q.Execute(ctx, "qmp_capabilities", nil, nil); err != nil {
		q.Close()
		return nil, err
	}
	return q, nil
}

// Execute runs a command and decodes what it returns into result, unless that is nil. A refusal is
// a *CommandError; ErrClosed means that QEMU has gone.
func (q *QMP) Execute(ctx context.Context, command string, arguments, result any) error {
	if err := q.execute(ctx, command, arguments, result); err != nil {
		return fmt.Errorf("monitor: %s: %w", command, err)
	}
	return nil
}

func (q *QMP) execute(ctx context.Context, command string, arguments, result any) error {
	answer := make(chan message, 1)
	q.mu.Lock()
	q.next++
	id := q.next
	q.pending[id] = answer
	q.mu.Unlock()
	defer func() {
		q.mu.Lock()
		delete(q.pending, id)
		q.mu.Unlock()
	}()
	line, err := json.Marshal(struct {
		Execute   string `json:"execute"`
		Arguments any    `json:"arguments,omitempty"`
		ID        int    `json:"id"`
	}{command, arguments, id})
	if err != nil {
		return err
	}
	if _, err := q.conn.Write(append(line, '\n')); err != nil {
		return errors.Join(ErrClosed, err)
	}
	select {
	case m := <-answer:
		if m.Error != nil {
			return m.Error
		}
		if result != nil {
			return json.Unmarshal(m.Return, result)
		}
		return nil
	case <-q.done:
		return q.failure()
	case <-ctx.Done():
		return ctx.Err()
	}
}

// WaitEvent returns the first event, from the connection's begin on, that match accepts.
func (q *QMP) WaitEvent(ctx context.Context, match func(Event) bool) (Event, error) {
	for seen := 0; ; {
		q.mu.Lock()
		events, changed := q.events[seen:], q.changed
		q.mu.Unlock()
		for _, e := range events {
			if match(e) {
				return e, nil
			}
		}
		seen += len(events)
		select {
		case <-changed:
		case <-q.done:
			return Event{}, q.failure()
		case <-ctx.Done():
			return Event{}, ctx.Err()
		}
	}
}

// Close ends the connection and waits for the reader.
func (q *QMP) Close() error {
	err := q.conn.Close()
	<-q.done
	return err
}

func (q *QMP) failure() error {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.err
}

// read hands out what QEMU sends until the connection ends.
func (q *QMP) read(greeted chan struct{}) {
	defer close(q.done)
	lines := bufio.NewReader(q.conn)
	for {
		line, err := lines.ReadBytes('\n')
		var m message
		if err == nil {
			err = json.Unmarshal(line, &m)
		}
		if err != nil {
			q.mu.Lock()
			q.err = ErrClosed
			if !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) {
				q.err = errors.Join(ErrClosed, err)
			}
			q.mu.Unlock()
			return
		}
		if m.Greeting != nil && greeted != nil {
			close(greeted)
			greeted = nil
		}
		q.deliver(m)
	}
}

func (q *QMP) deliver(m message) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if m.Event != "" {
		q.events = append(q.events, Event{m.Event, m.Data})
		close(q.changed)
		q.changed = make(chan struct{})
		return
	}
	if answer := q.pending[m.ID]; answer != nil {
		delete(q.pending, m.ID)
		answer <- m
	}
}
