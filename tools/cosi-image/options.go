package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/cosi-os/cosi/images/build"
)

// complete fills in what the environment says, and the tree: what o has from the flag --tree, or the one that belongs to place. Without p nothing is
// shown of what happens.
func complete(o build.Options, place string, p *progress) (build.Options, error) {
	var err error
	if o.Tree, err = sourceTree(o.Tree, place); err != nil {
		return o, err
	}
	if o.Cache, err = build.CacheDir(); err != nil {
		return o, err
	}
	o.Mirror, o.SourceDateEpoch = os.Getenv("COSI_MIRROR"), os.Getenv("SOURCE_DATE_EPOCH")
	if p != nil {
		o.Phase, o.Progress, o.Log = p.phase, p.downloaded, p.log
	}
	return o, nil
}

// Which tree it is that no flag names.
const (
	treeOfDefinition = "the one that the definition lies in"
	treeHere         = "the one here"
)

// addTree adds the flag that names the source tree.
func addTree(cmd *cobra.Command, tree *string, without string) {
	cmd.Flags().StringVar(tree, "tree", "", "the source tree, a `directory` (default: "+without+", or else $"+treeVariable+")")
	_ = cmd.MarkFlagDirname("tree") // there is such a flag
}

// treeVariable names the source tree for what lies in none.
const treeVariable = "COSI_TREE"

// errNoTree says that a path is in no source tree.
var errNoTree = errors.New("in no source tree (a directory with go.mod and " + build.LockFile + ")")

// sourceTree is the tree that a flag names; without, the one that place lies in, a definition or a directory, or else the one that the environment names.
func sourceTree(flag, place string) (string, error) {
	if flag != "" {
		tree, err := treeOf(flag)
		if err != nil {
			err = fmt.Errorf("--tree %w", err)
		}
		return tree, err
	}
	tree, err := treeOf(place)
	if !errors.Is(err, errNoTree) {
		return tree, err
	}
	variable := os.Getenv(treeVariable)
	if variable == "" {
		return "", fmt.Errorf("%w: name the one to build of, with --tree DIR or in %s", err, treeVariable)
	}
	if tree, err = treeOf(variable); err != nil {
		err = fmt.Errorf("%s: %w", treeVariable, err)
	}
	return tree, err
}

// treeOf is the source tree that a path lies in. It fails with errNoTree if that is in none.
func treeOf(path string) (string, error) {
	dir, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	info, err := os.Stat(dir)
	if err != nil {
		return "", err
	}
	if !info.IsDir() {
		dir = filepath.Dir(dir)
	}
	for ; ; dir = filepath.Dir(dir) {
		there, err := isTree(dir)
		if there || err != nil {
			return dir, err
		}
		if dir == filepath.Dir(dir) {
			return "", fmt.Errorf("%s: %w", path, errNoTree)
		}
	}
}

func isTree(dir string) (bool, error) {
	for _, file := range []string{"go.mod", build.LockFile} {
		if _, err := os.Stat(filepath.Join(dir, file)); errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
			return false, nil
		} else if err != nil {
			return false, err
		}
	}
	return true, nil
}
