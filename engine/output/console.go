package output

import (
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/cosi-os/cosi/engine/crash"
)

// consoleLines is how many lines wait for a console at most.
const consoleLines = 1024

// Console writes lines to a terminal that may be slow or stuck. What does not fit into its queue is dropped and counted.
type Console struct {
	w io.Writer

	wake chan struct{}
	done chan struct{}

	mu      sync.Mutex // guards the fields below
	queue   []string
	dropped int
	closed  bool
}

// NewConsole starts to write to w. Close ends it.
func NewConsole(w io.Writer) *Console {
	c := &Console{w: w, wake: make(chan struct{}, 1), done: make(chan struct{})}
	go c.run()
	return c
}

// print queues lines that belong together: all of them or none.
func (c *Console) print(text ...string) {
	c.mu.Lock()
	if len(c.queue)+len(text) > consoleLines || c.closed {
		c.dropped += len(text)
	} else {
		c.queue = append(c.queue, text...)
	}
	c.mu.Unlock()
	c.signal()
}

func (c *Console) signal() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// Close writes what is queued, for as long as that takes but at most the patience, and reports whether all was written.
func (c *Console) Close(patience time.Duration) bool {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.signal()
	select {
	case <-c.done:
		return true
	case <-time.After(patience):
		return false
	}
}

func (c *Console) run() {
	defer crash.Guard()
	defer close(c.done)
	var buffer []byte
	for {
		text, dropped, closed := c.take()
		if len(text) == 0 && dropped == 0 {
			if closed {
				return
			}
			<-c.wake
			continue
		}
		buffer = buffer[:0]
		for _, line := range text {
			buffer = append(buffer, printable(line)...)
			buffer = append(buffer, '\n')
		}
		if dropped > 0 {
			buffer = fmt.Appendf(buffer, "engine: %d lines were dropped here, the console is too slow\n", dropped)
		}
		c.w.Write(buffer) // a console that went away has no one to tell
	}
}

func (c *Console) take() (text []string, dropped int, closed bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	text, dropped, closed = c.queue, c.dropped, c.closed
	c.queue, c.dropped = nil, 0
	return text, dropped, closed
}
