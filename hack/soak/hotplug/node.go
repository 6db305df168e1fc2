package hotplug

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/cosi-os/cosi/tools/client"
	"github.com/cosi-os/cosi/tools/qemu"
	"github.com/cosi-os/cosi/tools/qemu/node"
)

// Soak boots a node from an image and does c on it, whose Machine, Client and Patience it brings. It looks for leaks.
func Soak(ctx context.Context, host *qemu.Host, image string, console io.Writer, c Config) Report {
	n, admin, err := boot(ctx, host, image, c.Dir, c.Bus, console)
	if err != nil {
		return Report{}.failed(err)
	}
	defer n.Kill()
	defer admin.Close()
	c.Machine, c.Client, c.Patience, c.Leaks = n.VM, admin, 15*time.Second*host.Slower(), 15*time.Second
	return Run(ctx, c)
}

// boot returns a node that is ready.
func boot(ctx context.Context, host *qemu.Host, image, dir string, bus Bus, console io.Writer) (*node.Node, *client.Client, error) {
	id, err := node.LoadIdentity(dir, "cosi", time.Now())
	if err != nil {
		return nil, nil, err
	}
	data, err := id.UserData()
	if err != nil {
		return nil, nil, err
	}
	userData := filepath.Join(dir, "user-data.yaml")
	if err := os.WriteFile(userData, data, 0o600); err != nil {
		return nil, nil, err
	}
	n, err := node.Start(ctx, host, node.Options{Image: image, Identity: id, UserData: userData, HotplugPorts: 1, Extra: bus.Arguments, Console: console})
	if err != nil {
		return nil, nil, err
	}
	ready, cancel := context.WithTimeout(ctx, time.Minute*host.Slower())
	defer cancel()
	err = n.WaitTLS(ready)
	var admin *client.Client
	if err == nil {
		admin, err = n.Dial()
	}
	if err == nil {
		_, err = n.WaitReady(ready, admin)
	}
	if err != nil {
		err = fmt.Errorf("%w; the console's last lines:\n%s", err, n.Console.Tail(40))
		n.Kill()
		if admin != nil {
			err = errors.Join(err, admin.Close())
		}
		return nil, nil, err
	}
	return n, admin, nil
}
