package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cosi-os/cosi/engine/node"
	"github.com/cosi-os/cosi/engine/output"
)

// beside runs the node in root until SIGTERM or SIGINT.
func beside(root string, port int) error {
	root, err := filepath.Abs(root)
	if err != nil {
		return err
	}
	if root == "/" {
		return errors.New("--root /: is the root of a machine; give the directory of a node")
	}
	// Before anything is made there: a directory that was mistyped stays as it is.
	if _, err := os.Stat(filepath.Join(root, "usr/bin", node.RuntimeName)); err != nil {
		return fmt.Errorf("--root: %w: is this the directory of a node? 'cosi-image root -o DIR DEFINITION' makes one", err)
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	// What plugins leave behind is reaped here, and a closed standard output ends nobody.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return err
	}
	signal.Ignore(unix.SIGPIPE)
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM, unix.SIGINT)
	defer stop()

	console := output.NewConsole(os.Stdout)
	defer console.Close(time.Second)
	log := output.NewLog(console)
	image, err := node.ReadImage(root)
	if err != nil {
		log.Printf("%v", err)
	}
	log.Printf("COSI %s in %s, the API for this user at unix://%s", image.Version, root, filepath.Join(root, "run/cosi/runtime.sock"))
	_, err = node.New(node.Config{Root: root, Port: port, Engine: self, Image: image}, log).Run(ctx)
	return err
}
