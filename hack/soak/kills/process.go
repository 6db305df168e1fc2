package kills

import (
	"context"
	"fmt"
	"io"
	"net"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/cosi-os/cosi/tools/client"
)

// Runtime is a runtime alone, with its socket and its data in a directory. A socket's name is short, so the directory's should be.
type Runtime struct {
	Program string
	Dir     string
	Log     io.Writer
}

// Config returns rounds for it: load for up to 0.4 s, and one in five killed before it may have begun to serve.
func (r Runtime) Config() Config {
	c := Config{Start: r.start, Namespace: "default", Load: 400 * time.Millisecond, Unready: 60 * time.Millisecond, OftenUnready: 5, Log: r.Log}
	for n := range 3 {
		c.Types = append(c.Types, fmt.Sprintf("Kills%d.soak.cosi.dev", n))
	}
	return c
}

// Data is the directory of the log.
func (r Runtime) Data() string { return filepath.Join(r.Dir, "data") }

func (r Runtime) start() (Victim, error) {
	p := &process{socket: filepath.Join(r.Dir, "x.sock"), ended: make(chan struct{})}
	p.cmd = exec.Command(r.Program, "--listen", "unix://"+p.socket, "--data", r.Data())
	p.cmd.Stderr = r.Log
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() { // until Kill
		p.cmd.Wait()
		close(p.ended)
	}()
	return p, nil
}

type process struct {
	socket string
	cmd    *exec.Cmd
	ended  chan struct{} // closed when it has
}

func (p *process) Kill() {
	p.cmd.Process.Kill()
	<-p.ended
}

// Dial waits for the socket: gRPC would try again only after a good part of a round. It fails when the runtime has ended by itself.
func (p *process) Dial(ctx context.Context) (*client.Client, error) {
	for {
		conn, err := net.Dial("unix", p.socket)
		if err == nil {
			conn.Close()
			return client.Dial(client.Context{Endpoint: "unix://" + p.socket})
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-p.ended:
			return nil, fmt.Errorf("the runtime has ended: %v", p.cmd.ProcessState)
		case <-time.After(5 * time.Millisecond):
		}
	}
}
