package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/cosi-os/cosi/images/build"
	"github.com/cosi-os/cosi/tools/cosi-boot/internal/admin"
	"github.com/cosi-os/cosi/tools/cosi-boot/internal/book"
	"github.com/cosi-os/cosi/tools/cosi-boot/internal/image"
)

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
		Phase: func(string) func(string) { return func(string) {} }, Log: logf,
	}
	return image.NewBuilder(b, filepath.Join(state, "build"), images, all.Images), nil
}
