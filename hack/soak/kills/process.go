package kills

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"

	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
)

type client = resourcepb.StateClient

// process is a runtime.
type process struct {
	socket string
	cmd    *exec.Cmd
	once   sync.Once
}

func start(c Config) (*process, error) {
	p := &process{socket: filepath.Join(c.Dir, "x.sock")}
	p.cmd = exec.Command(c.Program, "--listen", "unix://"+p.socket, "--data", filepath.Join(c.Dir, "data"))
	p.cmd.Stderr = c.Log
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	return p, nil
}

// kill is SIGKILL. It returns when the process is gone.
func (p *process) kill() {
	p.once.Do(func() {
		p.cmd.Process.Kill()
		p.cmd.Wait()
	})
}

func (p *process) dial() (*grpc.ClientConn, client, error) {
	// A runtime that has just been started is there in a moment, and the usual second would be most of a round.
	often := grpc.ConnectParams{Backoff: backoff.Config{BaseDelay: 5 * time.Millisecond, Multiplier: 1, MaxDelay: 5 * time.Millisecond}}
	conn, err := grpc.NewClient("unix://"+p.socket, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithConnectParams(often))
	if err != nil {
		return nil, nil, err
	}
	return conn, resourcepb.NewStateClient(conn), nil
}

// with calls do with a client that has a connection of its own.
func (p *process) with(do func(client) error) error {
	conn, c, err := p.dial()
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer conn.Close()
	return do(c)
}
