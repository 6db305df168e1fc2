package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/cosi-os/cosi/images/build"
)

// plugin is the file that changed changes: a line of what a person would work on.
const plugin = "plugins/mount/mount.go"

// changed times the build of the image after one line of a plugin was changed: the median of three runs in a copy of the tree, with
// the build cache of this one.
func changed(ctx context.Context) (time.Duration, error) {
	c, err := copyTree(ctx)
	if err != nil {
		return 0, err
	}
	defer c.remove()
	file := filepath.Join(c.tree, plugin)
	source, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	image := func() error { return c.run(ctx, "make", "--no-print-directory", "image") }
	if err := image(); err != nil {
		return 0, err
	}
	n := 0
	return median(func() error {
		n++
		line := fmt.Sprintf("\n// Changed is new in build %d.\nconst Changed = %d\n", n, time.Now().UnixNano())
		return os.WriteFile(file, append(source[:len(source):len(source)], line...), 0o644)
	}, image)
}

// clean times the build of the image in a fresh copy of the tree by somebody who has compiled nothing before; the modules are downloaded
// already, and so are the packages of the kernel.
func clean(ctx context.Context) ([]figure, error) {
	c, err := copyTree(ctx)
	if err != nil {
		return nil, err
	}
	defer c.remove()
	if err := c.run(ctx, "go", "mod", "download"); err != nil {
		return nil, err
	}
	c.environment = append(c.environment, "GOCACHE="+filepath.Join(c.dir, "go-build"))
	start := time.Now()
	if err := c.run(ctx, "make", "--no-print-directory", "image"); err != nil {
		return nil, err
	}
	return []figure{{"image, clean build cache, modules downloaded", time.Since(start).Seconds(), "s", 150}}, nil
}

// checkout is a copy of the tree, whose builder has a cache of its own: the programs that others compiled are not in it, and what it
// compiles takes the place of none of theirs.
type checkout struct {
	dir, tree   string
	environment []string
}

// copyTree copies the files that git knows, as they are now, and the packages that were fetched.
func copyTree(ctx context.Context) (c *checkout, err error) {
	c = &checkout{}
	if c.dir, err = os.MkdirTemp("", "bench"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			c.remove()
		}
	}()
	c.tree = filepath.Join(c.dir, "tree")
	cache := filepath.Join(c.dir, "cache")
	c.environment = []string{"COSI_CACHE=" + cache}
	if err := os.Mkdir(c.tree, 0o755); err != nil {
		return nil, err
	}
	const script = `git ls-files -z -co --exclude-standard | tar --null -T - -cf - | tar -xf - -C "$0"
cd "$0" && git init -q && git add . && git -c user.name=bench -c user.email=bench@localhost commit -q -m bench`
	if out, err := exec.CommandContext(ctx, "sh", "-ec", script, c.tree).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("copy the tree: %w: %s", err, out)
	}
	shared, err := build.CacheDir()
	if err != nil {
		return nil, err
	}
	return c, os.CopyFS(filepath.Join(cache, "packages"), os.DirFS(filepath.Join(shared, "packages")))
}

func (c *checkout) remove() { os.RemoveAll(c.dir) }

// run runs a program in the copy.
func (c *checkout) run(ctx context.Context, name string, arguments ...string) error {
	cmd := exec.CommandContext(ctx, name, arguments...)
	cmd.Dir, cmd.Env = c.tree, append(os.Environ(), c.environment...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, out)
	}
	return nil
}
