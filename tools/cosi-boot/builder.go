package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/cosi-os/cosi/images/build"
	"github.com/cosi-os/cosi/tools/cosi-boot/internal/admin"
	"github.com/cosi-os/cosi/tools/cosi-boot/internal/book"
	"github.com/cosi-os/cosi/tools/cosi-boot/internal/image"
)

// phase logs each phase of a build when it has ended.
func phase(logf func(string, ...any)) func(name string) func(note string) {
	return func(name string) func(string) {
		began := time.Now()
		return func(note string) {
			logf("posted image: %s", strings.TrimSpace(fmt.Sprintf("%.1f s  %-12s %s", time.Since(began).Seconds(), name, note)))
		}
	}
}

// builder is what builds posted definitions, nil if the flags name no tree to build from.
func (o *options) builder(state string, images *image.Store, all *book.Book, logf func(string, ...any)) (admin.Builder, error) {
	if o.tree == "" {
		return nil, nil
	}
	if _, err := os.Stat(filepath.Join(o.tree, build.LockFile)); err != nil {
		return nil, fmt.Errorf("--tree: %w", err)
	}
	cache, err := build.CacheDir()
	if err != nil {
		return nil, err
	}
	b := build.Options{
		Tree: o.tree, Cache: cache, Mirror: os.Getenv("COSI_MIRROR"), SourceDateEpoch: os.Getenv("SOURCE_DATE_EPOCH"),
		Phase: phase(logf), Log: logf,
	}
	return image.NewBuilder(b, filepath.Join(state, "build"), images, all.Images), nil
}
