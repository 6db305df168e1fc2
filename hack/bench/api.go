package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cosi-os/cosi/hack/load/drive"
)

// api puts the runtime alone under load. Its figures stand beside those of another server, in a table of their own, and none is returned.
func api(ctx context.Context) ([]figure, error) {
	dir, err := os.MkdirTemp("", "bench")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	memory, err := startRuntime(ctx, filepath.Join(dir, "m"), "")
	if err != nil {
		return nil, err
	}
	defer memory.stop()
	figures, err := drive.Memory(ctx, memory.Server)
	if err != nil {
		return nil, err
	}
	grown, err := growth(ctx, filepath.Join(dir, "g"))
	if err != nil {
		return nil, fmt.Errorf("growth: %w", err)
	}
	figures = append(figures, grown...)
	data := filepath.Join(outputs, "bench-data") // where the project is, there is a disk; /tmp may be memory
	if err := errors.Join(os.RemoveAll(data), os.MkdirAll(data, 0o755)); err != nil {
		return nil, err
	}
	defer os.RemoveAll(data)
	kept, err := durable(ctx, dir, data, memory.Server)
	if err != nil {
		err = fmt.Errorf("durable: %w", err)
	}
	fmt.Println()
	return nil, errors.Join(err, drive.Print(os.Stdout, append(figures, kept...)))
}

// growth measures a runtime in memory while it holds more and more.
func growth(ctx context.Context, socket string) ([]drive.Figure, error) {
	r, err := startRuntime(ctx, socket, "")
	if err != nil {
		return nil, err
	}
	defer r.stop()
	figures, _, err := r.Growth(ctx, "in memory,")
	return figures, err
}

// durable measures a runtime that keeps its data, when it holds little and when it holds much.
func durable(ctx context.Context, dir, data string, memory *drive.Server) ([]drive.Figure, error) {
	r, err := startRuntime(ctx, filepath.Join(dir, "d"), filepath.Join(data, "little"))
	if err != nil {
		return nil, err
	}
	defer r.stop()
	figures, err := drive.Durable(ctx, r.Server, memory, data, r.syncs)
	if err != nil {
		return nil, err
	}
	much, err := large(ctx, dir, filepath.Join(data, "much"))
	return append(figures, much...), err
}

// large fills a runtime, looks at what operations cost then, and starts it again.
func large(ctx context.Context, dir, data string) ([]drive.Figure, error) {
	r, err := startRuntime(ctx, filepath.Join(dir, "l"), data)
	if err != nil {
		return nil, err
	}
	defer func() { r.stop() }()
	empty, err := r.Memory()
	if err != nil {
		return nil, err
	}
	figures, kind, err := r.Growth(ctx, "durable")
	if err != nil {
		return nil, err
	}
	encoded, err := r.Encoded(ctx, kind)
	if err != nil {
		return nil, err
	}
	r.stop()
	begun := time.Now()
	again, err := startRuntime(ctx, filepath.Join(dir, "l"), data)
	if err != nil {
		return nil, err
	}
	r = again
	if err := r.Holds(ctx, kind); err != nil {
		return nil, err
	}
	took := time.Since(begun)
	full, err := r.Memory()
	if err != nil {
		return nil, err
	}
	return append(figures,
		drive.Figure{Name: "start with 100,000 resources, until the first answer", Measured: took.Seconds(), Unit: "s", Target: 1},
		drive.Figure{Name: "memory for each byte of 100,000 resources", Measured: float64(full-empty) / float64(encoded), Unit: "bytes", Target: 3},
	), nil
}

// program is a runtime that runs alone, and the load on it.
type program struct {
	*drive.Server
	cmd  *exec.Cmd
	says chan drive.Syncs
}

// startRuntime starts one on a socket, in memory unless it has a directory for its data, and waits until it answers.
func startRuntime(ctx context.Context, socket, data string) (*program, error) {
	arguments := []string{"--listen", "unix://" + socket, "--limit", fmt.Sprintf("resources_of_kind=%d", 4*drive.Large)}
	if data != "" {
		arguments = append(arguments, "--data", data)
	}
	p := &program{cmd: exec.CommandContext(ctx, filepath.Join(outputs, "bin/runtime"), arguments...), says: make(chan drive.Syncs, 1)}
	said, err := p.cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go p.listen(said) // until the runtime ends
	for deadline := time.Now().Add(30 * time.Second); ; {
		conn, err := net.Dial("unix", socket)
		if err == nil {
			conn.Close()
			break
		}
		if ctx.Err() != nil || time.Now().After(deadline) {
			p.stop()
			return nil, err
		}
		time.Sleep(2 * time.Millisecond)
	}
	if p.Server, err = drive.Open("unix://" + socket); err != nil {
		p.stop()
		return nil, err
	}
	return p, nil
}

// listen reads what the runtime says, and passes on what was not asked for.
func (p *program) listen(said io.Reader) {
	for lines := bufio.NewScanner(said); lines.Scan(); {
		var s drive.Syncs
		var p50 string
		n, _ := fmt.Sscanf(lines.Text(), "fdatasyncs %d %s", &s.N, &p50)
		took, err := time.ParseDuration(p50)
		if n != 2 || err != nil {
			fmt.Fprintln(os.Stderr, lines.Text())
			continue
		}
		s.P50 = took
		p.says <- s
	}
}

// syncs asks the runtime how often it has waited for the disk.
func (p *program) syncs() (drive.Syncs, error) {
	if err := p.cmd.Process.Signal(unix.SIGUSR1); err != nil {
		return drive.Syncs{}, err
	}
	select {
	case s := <-p.says:
		return s, nil
	case <-time.After(10 * time.Second):
		return drive.Syncs{}, errors.New("the runtime does not say how often it has waited for the disk")
	}
}

// stop ends the runtime.
func (p *program) stop() {
	if p.Server != nil {
		p.Close()
	}
	p.cmd.Process.Signal(os.Interrupt)
	p.cmd.Wait()
}
