package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// plugin is the file that changed changes: a line of what a person would work on.
const plugin = "plugins/mount/mount.go"

// changed times the build of the image after one line of a plugin was changed: the median of three runs in a copy of the tree, with
// the caches of this one.
func changed(ctx context.Context) (time.Duration, error) {
	tree, remove, err := copyTree(ctx)
	if err != nil {
		return 0, err
	}
	defer remove()
	file := filepath.Join(tree, plugin)
	source, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	build := func() error { return command(ctx, tree, nil, "make", "--no-print-directory", "image") }
	if err := build(); err != nil {
		return 0, err
	}
	n := 0
	return median(func() error {
		n++
		line := fmt.Sprintf("\n// Changed is new in build %d.\nconst Changed = %d\n", n, time.Now().UnixNano())
		return os.WriteFile(file, append(source[:len(source):len(source)], line...), 0o644)
	}, build)
}

// clean times the build of the image in a fresh copy of the tree, with an empty build cache; the modules are downloaded already, and so
// are the packages of the kernel.
func clean(ctx context.Context) ([]figure, error) {
	tree, remove, err := copyTree(ctx)
	if err != nil {
		return nil, err
	}
	defer remove()
	cache := filepath.Join(tree, "gocache")
	if err := command(ctx, tree, nil, "go", "mod", "download"); err != nil {
		return nil, err
	}
	start := time.Now()
	if err := command(ctx, tree, []string{"GOCACHE=" + cache}, "make", "--no-print-directory", "image"); err != nil {
		return nil, err
	}
	return []figure{{"image, empty build cache, modules downloaded", time.Since(start).Seconds(), "s", 150}}, nil
}

// copyTree copies the files that git knows, as they are now, and the downloaded packages of the kernel.
func copyTree(ctx context.Context) (tree string, remove func(), err error) {
	dir, err := os.MkdirTemp("", "bench")
	if err != nil {
		return "", nil, err
	}
	remove = func() { os.RemoveAll(dir) }
	err = command(ctx, ".", nil, "sh", "-ec", `git ls-files -z -co --exclude-standard | xargs -0 tar -cf - | tar -xf - -C "$0"
mkdir -p "$0/build" && cp -al build/cache "$0/build/cache" 2>/dev/null || cp -a build/cache "$0/build/cache"
cd "$0" && git init -q && git add . && git -c user.name=bench -c user.email=bench@localhost commit -q -m bench`, dir)
	if err != nil {
		remove()
		return "", nil, err
	}
	return dir, remove, nil
}

func command(ctx context.Context, dir string, env []string, name string, arguments ...string) error {
	cmd := exec.CommandContext(ctx, name, arguments...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, out)
	}
	return nil
}
