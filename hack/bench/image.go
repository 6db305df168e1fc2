package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"time"
)

const (
	outputs = "build"
	image   = "cosi-base-amd64"
	runs    = 3

	base    = "base"
	formats = "formats" // the base image in every format
)

// builds times the image builder, as a user calls it: the median of three runs.
func builds(ctx context.Context) ([]figure, error) {
	if err := buildImage(ctx, base); err != nil {
		return nil, err
	}
	unchanged, err := median(func() error { return nil }, func() error { return buildImage(ctx, base) })
	if err != nil {
		return nil, err
	}
	deleted, err := median(func() error { return removeOutputs(base) }, func() error { return buildImage(ctx, base) })
	if err != nil {
		return nil, err
	}
	peak := 0.0
	all, err := median(func() error { return removeOutputs(formats) }, func() error {
		used, err := built(ctx, formats)
		peak = max(peak, used)
		return err
	})
	if err != nil {
		return nil, err
	}
	changed, err := changed(ctx)
	if err != nil {
		return nil, err
	}
	return []figure{
		{"image, up to date", unchanged.Seconds(), "s", 1},
		{"image, outputs deleted, caches warm", deleted.Seconds(), "s", 1.5},
		{"image in every format, outputs deleted, caches warm", all.Seconds(), "s", 6},
		{"image in every format, the builder's memory at most", peak, "MB", 300},
		{"image, one line of a plugin changed", changed.Seconds(), "s", 6},
	}, nil
}

func buildImage(ctx context.Context, definition string) error {
	_, err := built(ctx, definition)
	return err
}

// built builds an image, and returns the MB of memory that the builder used at most.
func built(ctx context.Context, definition string) (float64, error) {
	file := filepath.Join("images", definition+".yaml")
	cmd := exec.CommandContext(ctx, filepath.Join(outputs, "bin/cosi-image"), "build", "-o", outputs, file)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return 0, fmt.Errorf("%w: %s", err, out)
	}
	return float64(cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss) * 1024 / 1e6, nil
}

func removeOutputs(definition string) error {
	files, err := filepath.Glob(filepath.Join(outputs, "cosi-"+definition+"-amd64.*"))
	for _, file := range files {
		if err := os.Remove(file); err != nil {
			return err
		}
	}
	return err
}

func median(before, measured func() error) (time.Duration, error) {
	var all []time.Duration
	for range runs {
		if err := before(); err != nil {
			return 0, err
		}
		start := time.Now()
		if err := measured(); err != nil {
			return 0, err
		}
		all = append(all, time.Since(start))
	}
	slices.Sort(all)
	return all[runs/2], nil
}

// size looks at the image's files. The initramfs holds the root.
func size(context.Context) ([]figure, error) { return sizes(image, "") }

// sizeOwn looks at those of the image on our own kernel, for which the same holds.
func sizeOwn(context.Context) ([]figure, error) { return sizes(ownImage, " on our own kernel") }

func sizes(image, of string) ([]figure, error) {
	var figures []figure
	for _, f := range []figure{{name: "qcow2", target: 40}, {name: "iso", target: 45}, {name: "initramfs", target: 45}} {
		info, err := os.Stat(filepath.Join(outputs, image+"."+f.name))
		if err != nil {
			return nil, err
		}
		f.measured, f.unit = float64(info.Size())/1e6, "MB"
		if f.name == "initramfs" {
			f.name = "root and initramfs together"
		}
		f.name += of
		figures = append(figures, f)
	}
	return figures, nil
}
