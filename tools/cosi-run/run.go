package main

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

// nodeName is the name that the node's certificate carries.
const nodeName = "cosi"

// powerOff is how long a node may take to power off, on hardware.
const powerOff = 10 * time.Second

// run boots o's image and stays until the node powers off or ctx ends.
func run(ctx context.Context, o options) error {
	arch, err := node.Arch(o.image)
	if err != nil {
		return err
	}
	host, err := qemu.Find(ctx, arch)
	if err != nil {
		return err
	}
	if o.timeout == 0 {
		o.timeout = time.Minute * host.Slower()
	}
	id, userData, err := prepare(o.dir)
	if err != nil {
		return err
	}
	data, err := dataDisk(ctx, o.dir)
	if err != nil {
		return err
	}
	disk, err := systemDisk(o)
	if err != nil {
		return err
	}
	console, err := os.Create(filepath.Join(o.dir, "console.log"))
	if err != nil {
		return err
	}
	defer console.Close()
	var out io.Writer = console
	if o.console {
		out = io.MultiWriter(console, os.Stdout)
	}
	r := newReport(os.Stdout)
	if disk.said != "" {
		r.stage("%s", disk.said)
	}
	n, err := node.Start(ctx, host, node.Options{
		Image: disk.file, Keep: disk.kept, Boot: o.boot, Identity: id, UserData: userData,
		Memory: o.memory, Port: o.port, Disks: []qemu.Disk{data}, HotplugPorts: 2, USB: true, Console: out,
	})
	if err != nil {
		return err
	}
	r.stage("QEMU %s with %s boots %s by %s", host.Version, host.Accelerator(), o.image, o.boot)
	if err := follow(ctx, n, o, r); err != nil {
		return errors.Join(err, end(n, host))
	}
	if o.check {
		return end(n, host)
	}
	return stay(ctx, n, host, r)
}

// follow waits until the node is ready and writes the context that leads to it.
func follow(ctx context.Context, n *node.Node, o options, r *report) error {
	ctx, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	if err := r.until(ctx, n); err != nil {
		return withConsole(n, err)
	}
	config := filepath.Join(o.dir, "config.yaml")
	c := client.Config{Current: nodeName, Contexts: map[string]*client.Context{nodeName: &n.Context}}
	if err := c.Save(config); err != nil {
		return err
	}
	if !o.check {
		r.how(config, n.Context.Endpoint, filepath.Join(o.dir, "console.log"))
	}
	return nil
}

// stay waits for the node or for ctx, and powers the node down.
func stay(ctx context.Context, n *node.Node, host *qemu.Host, r *report) error {
	select {
	case <-n.Done():
		r.stage("the node has powered off")
		return n.Wait()
	case <-ctx.Done():
		r.stage("powering down (again: at once)")
		return end(n, host)
	}
}

// end powers the node down. It may be that it cannot any more.
func end(n *node.Node, host *qemu.Host) error {
	ctx, cancel := context.WithTimeout(context.Background(), powerOff*host.Slower())
	defer cancel()
	return n.PowerDown(ctx)
}

// withConsole adds the end of the console to an error: that is where the reason stands.
func withConsole(n *node.Node, err error) error {
	return fmt.Errorf("%w\nthe console's last lines:\n%s", err, n.Console.Tail(20))
}
