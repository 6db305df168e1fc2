// Package versions builds other versions of the image "base", for a node to be upgraded to, and what makes them differ. The VM tests and the soak call it.
package versions

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	images "github.com/cosi-os/cosi/images/build"
)

// Build builds the base image of the module in tree, called name and with more in its definition, and returns the file of an upgrade in dir.
func Build(ctx context.Context, tree, dir, name, more string, log func(format string, args ...any)) (string, error) {
	tree, err := filepath.Abs(tree)
	if err != nil {
		return "", err
	}
	base, err := filepath.Rel(dir, filepath.Join(tree, "images", "base.yaml"))
	if err != nil {
		return "", err
	}
	cache, err := images.CacheDir()
	if err != nil {
		return "", err
	}
	definition := filepath.Join(dir, name+".yaml")
	if err := os.WriteFile(definition, fmt.Appendf(nil, "name: %s\nextends: %s\n%s\noutputs: [upgrade]\n", name, base, more), 0o600); err != nil {
		return "", err
	}
	_, err = images.Run(ctx, images.Options{
		Tree: tree, Output: dir, Cache: cache, Mirror: os.Getenv("COSI_MIRROR"),
		Phase: func(string) func(string) { return func(string) {} }, Log: log,
	}, definition)
	return filepath.Join(dir, "cosi-"+name+"-amd64.upgrade"), err
}
