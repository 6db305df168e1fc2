package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/cosi-os/cosi/tools/pki"
	"github.com/cosi-os/cosi/tools/qemu"
	"github.com/cosi-os/cosi/tools/qemu/node"
)

// prepare makes dir with the node's keys and user data, or finds them there. User data that somebody
// has changed stays as it is.
func prepare(dir string) (id *node.Identity, userData string, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, "", err
	}
	id, err = node.LoadIdentity(dir, nodeName, time.Now())
	if err != nil {
		return nil, "", err
	}
	userData = filepath.Join(dir, "user-data.yaml")
	if _, err := os.Stat(userData); err == nil || !errors.Is(err, fs.ErrNotExist) {
		return id, userData, err
	}
	data, err := id.UserData()
	if err != nil {
		return nil, "", err
	}
	return id, userData, pki.WriteFile(userData, data, 0o600)
}

const dataSize = 256 << 20

// dataDisk makes dir's data disk, or finds it there: ext4 if mke2fs is installed, else blank. The
// node sees it as /dev/vdb, behind the system's disk.
func dataDisk(ctx context.Context, dir string) (qemu.Disk, error) {
	disk := qemu.Disk{ID: "data", File: filepath.Join(dir, "data.ext4"), Format: "raw"}
	if _, err := os.Stat(disk.File); err == nil || !errors.Is(err, fs.ErrNotExist) {
		return disk, err
	}
	fresh := disk.File + ".new"
	if err := os.WriteFile(fresh, nil, 0o600); err != nil {
		return disk, err
	}
	if err := os.Truncate(fresh, dataSize); err != nil {
		return disk, err
	}
	if mkfs := find("mke2fs"); mkfs != "" {
		out, err := exec.CommandContext(ctx, mkfs, "-q", "-F", "-t", "ext4", "-L", "data", fresh).CombinedOutput()
		if err != nil {
			return disk, fmt.Errorf("%s: %w: %s", mkfs, err, out)
		}
	}
	return disk, os.Rename(fresh, disk.File)
}

// find also looks where a user's PATH does not lead.
func find(program string) string {
	for _, p := range []string{program, "/usr/sbin/" + program, "/sbin/" + program} {
		if path, err := exec.LookPath(p); err == nil {
			return path
		}
	}
	return ""
}
