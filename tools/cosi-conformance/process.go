package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"

	"google.golang.org/protobuf/proto"

	servicepb "github.com/cosi-os/cosi/api/cosi/service/v1alpha1"
	"github.com/cosi-os/cosi/engine/runtime/plugins"
	"github.com/cosi-os/cosi/engine/runtime/state"
	"github.com/cosi-os/cosi/engine/wire"
)

func (h *host) startPlugin() error {
	h.killPlugin()
	if err := h.sessionOver(); err != nil {
		return err
	}
	cmd := exec.Command(h.program)
	cmd.Env = append(os.Environ(), wire.EnvEndpoint+"=unix://"+h.socket(), wire.EnvName+"="+h.declaration.Name)
	cmd.Stdout, cmd.Stderr = h.said, h.said
	if err := cmd.Start(); err != nil {
		return err
	}
	h.plugin, h.ended = cmd, make(chan error, 1)
	go func(ended chan<- error) { ended <- cmd.Wait() }(h.ended)
	return nil
}

func (h *host) killPlugin() {
	if h.plugin != nil {
		_ = h.plugin.Process.Signal(syscall.SIGKILL) // it may have ended by itself
		<-h.ended
		h.plugin = nil
	}
}

// sessionOver waits until the runtime has seen that the plugin is gone: until then the status says of the next one that it is ready.
func (h *host) sessionOver() error {
	for end := time.Now().Add(10 * time.Second); h.ready() == nil; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			return errors.New("the runtime holds on to the session of a process that has ended")
		}
	}
	return nil
}

// waitPlugin returns the exit code of a plugin that ends by itself.
func (h *host) waitPlugin(patience time.Duration) (int, error) {
	select {
	case <-h.ended:
		code := h.plugin.ProcessState.ExitCode()
		h.plugin = nil
		return code, nil
	case <-time.After(patience):
		h.killPlugin()
		return 0, fmt.Errorf("its process has not ended after %v", patience)
	}
}

// alive fails when the plugin does not run.
func (h *host) alive() error {
	if h.plugin == nil {
		return errors.New("its process does not run")
	}
	select {
	case err := <-h.ended:
		h.ended <- err
		return fmt.Errorf("its process has ended: %v", h.plugin.ProcessState)
	default:
		return nil
	}
}

// ready returns what the plugin's status says instead.
func (h *host) ready() error {
	r, err := h.store.Get(context.Background(), state.Pointer{Kind: plugins.Statuses, ID: h.declaration.Name})
	if err != nil {
		return err
	}
	s := &servicepb.PluginStatus{}
	if err := proto.Unmarshal(r.GetSpec().GetProtoSpec(), s); err != nil {
		return err
	}
	switch {
	case s.GetReady():
		return nil
	case s.GetState() == plugins.Stopped: // as far as this runtime knows
		return errors.New("it has not registered")
	default:
		return fmt.Errorf("%s: %s", s.GetState(), s.GetMessage())
	}
}
