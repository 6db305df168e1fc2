package main

import (
	"context"
	"os"
	"path/filepath"
	"time"

	"github.com/cosi-os/cosi/hack/guestcount"
	"github.com/cosi-os/cosi/tools/qemu"
	"github.com/cosi-os/cosi/tools/qemu/node"
)

// boot counts guest instructions from power-on under OVMF: the raw image, an address by DHCP, user data by fw_cfg. Counts, unlike seconds,
// hardly depend on what else the machine does.
func boot(ctx context.Context) ([]figure, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	host, err := qemu.Find(ctx)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "bench")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	id, err := node.LoadIdentity(dir, "bench", time.Now())
	if err != nil {
		return nil, err
	}
	data, err := id.UserData()
	if err != nil {
		return nil, err
	}
	userData := filepath.Join(dir, "user-data.yaml")
	if err := os.WriteFile(userData, data, 0o600); err != nil {
		return nil, err
	}
	o := node.Options{Image: filepath.Join(outputs, image+".raw"), Identity: id, UserData: userData}
	events, err := guestcount.Measure(ctx, host, filepath.Join(outputs, "cache/guestcount"), o, guestcount.Marks())
	if err != nil {
		return nil, err
	}
	targets := map[string]float64{guestcount.TLS: 3.4, guestcount.Ready: 3.8}
	var figures []figure
	for _, e := range events {
		figures = append(figures, figure{"boot to " + e.Name, float64(e.Instructions) / 1e9, "G instructions", targets[e.Name]})
	}
	return figures, nil
}
