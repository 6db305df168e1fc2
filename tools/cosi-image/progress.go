package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"
)

// progress shows a build's phases: on a terminal those that run, with their times and what they have downloaded so far, on one line that is drawn again and again; and
// everywhere a line for each phase that has ended.
type progress struct {
	out      io.Writer
	terminal bool
	began    time.Time
	now      func() time.Time
	quit     chan struct{}
	ended    chan struct{} // closed when nothing is drawn any more

	mu      sync.Mutex // guards the fields below, and out
	running []*running
	drawn   bool // the last line is a drawn one
	stopped bool
}

type running struct {
	name  string
	began time.Time
	bytes int64 // downloaded of a package
}

// newProgress starts the drawing. It ends with stop.
func newProgress(out io.Writer) *progress {
	file, ok := out.(*os.File)
	p := &progress{out: out, terminal: ok && term.IsTerminal(int(file.Fd())), now: time.Now, quit: make(chan struct{}), ended: make(chan struct{})}
	p.began = p.now()
	go p.run()
	return p
}

func (p *progress) run() {
	defer close(p.ended)
	if !p.terminal {
		return
	}
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	for {
		select {
		case <-p.quit:
			return
		case <-ticker.C:
			p.mu.Lock()
			p.draw()
			p.mu.Unlock()
		}
	}
}

// stop ends the drawing and wipes what was drawn. A second stop does nothing.
func (p *progress) stop() {
	p.mu.Lock()
	first := !p.stopped
	p.stopped = true
	p.wipe()
	p.mu.Unlock()
	if first {
		close(p.quit)
	}
	<-p.ended
}

func (p *progress) elapsed() float64 { return p.now().Sub(p.began).Seconds() }

// phase notes that a phase begins; what it returns, that it has ended.
func (p *progress) phase(name string) func(note string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	this := &running{name: name, began: p.now()}
	p.running = append(p.running, this)
	return func(note string) {
		p.mu.Lock()
		defer p.mu.Unlock()
		for i, r := range p.running {
			if r == this {
				p.running = append(p.running[:i:i], p.running[i+1:]...)
				break
			}
		}
		p.line(strings.TrimRight(fmt.Sprintf("%7.2f s  %-12s %s", p.now().Sub(this.began).Seconds(), name, note), " "))
	}
}

// downloaded notes how many bytes of a package are there, for the phase that waits for it.
func (p *progress) downloaded(phase string, bytes int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, r := range p.running {
		if r.name == phase {
			r.bytes = bytes
		}
	}
}

func (p *progress) log(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.line(fmt.Sprintf(format, args...))
}

func (p *progress) line(text string) {
	p.wipe()
	fmt.Fprintln(p.out, text)
}

func (p *progress) wipe() {
	if p.drawn {
		io.WriteString(p.out, "\r\x1b[K")
		p.drawn = false
	}
}

func (p *progress) draw() {
	p.wipe()
	if p.stopped || len(p.running) == 0 {
		return
	}
	var all []string
	for _, r := range p.running {
		text := fmt.Sprintf("%s %.1f s", r.name, p.now().Sub(r.began).Seconds())
		if r.bytes > 0 {
			text += fmt.Sprintf(", %.1f MB", float64(r.bytes)/1e6)
		}
		all = append(all, text)
	}
	io.WriteString(p.out, "          "+strings.Join(all, " · "))
	p.drawn = true
}
