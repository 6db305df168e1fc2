package qemu

import (
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"sync"
)

// ErrEnded says that the VM ended before the console showed what was waited for.
var ErrEnded = errors.New("the VM has ended")

// Console keeps the last MiB that a VM wrote to its serial port. Positions count from the VM's start.
type Console struct {
	tee io.Writer // may be nil; its errors do not matter to the VM

	mu      sync.Mutex // guards the fields below
	data    []byte
	dropped int           // bytes that were there before data
	changed chan struct{} // closed and replaced at each write
	ended   error         // set once nothing more comes: ErrEnded, and why if it is not the guest's doing
}

const consoleSize = 1 << 20

// NewConsole returns an empty console that copies what it gets to tee, unless that is nil.
func NewConsole(tee io.Writer) *Console {
	return &Console{tee: tee, changed: make(chan struct{})}
}

// Write never fails.
func (c *Console) Write(p []byte) (int, error) {
	if c.tee != nil {
		c.tee.Write(p)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.data = append(c.data, p...)
	if extra := len(c.data) - consoleSize; extra > consoleSize {
		c.data = append([]byte(nil), c.data[extra:]...)
		c.dropped += extra
	}
	c.wake()
	return len(p), nil
}

// end tells those who wait that nothing more comes, and why, unless the guest has powered off.
func (c *Console) end(why error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ended = ErrEnded
	if why != nil {
		c.ended = fmt.Errorf("%w: %w", ErrEnded, why)
	}
	c.wake()
}

func (c *Console) wake() {
	close(c.changed)
	c.changed = make(chan struct{})
}

// Position is where the next byte will stand, to be given to Wait.
func (c *Console) Position() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.dropped + len(c.data)
}

// Wait waits until what was written from a position on matches re, and returns the match and its
// groups. When the VM ends before, the error is ErrEnded, and says what QEMU died of if the guest has not powered off.
func (c *Console) Wait(ctx context.Context, from int, re *regexp.Regexp) ([]string, error) {
	for {
		c.mu.Lock()
		text := c.data[max(0, min(from-c.dropped, len(c.data))):]
		ended, changed := c.ended, c.changed
		c.mu.Unlock()
		// Written bytes never change, so that they can be read without the lock.
		if m := re.FindSubmatch(text); m != nil {
			groups := make([]string, len(m))
			for i := range m {
				groups[i] = string(m[i])
			}
			return groups, nil
		}
		if ended != nil {
			return nil, fmt.Errorf("console: %q: %w", re, ended)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, fmt.Errorf("console: %q: %w", re, ctx.Err())
		}
	}
}

// escapes are what firmware paints its screen with.
var escapes = regexp.MustCompile(`\x1b\[[0-9;?=]*[A-Za-z]|\r`)

// Tail returns the last n lines, without the escapes of a terminal.
func (c *Console) Tail(n int) string {
	c.mu.Lock()
	text := string(c.data)
	c.mu.Unlock()
	lines := strings.Split(strings.TrimRight(escapes.ReplaceAllString(text, ""), "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
