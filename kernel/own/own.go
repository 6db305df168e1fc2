// Package own builds our own kernel: Debian's source of Linux with the configuration in kernel/config, without loadable modules.
//
// "make kernel" calls it, by way of cosi-image; the image builder takes from the cache what is there, and never builds one: it takes half an
// hour. A kernel says of itself neither when nor where nor by whom it was built: the same source, configuration and tools are meant to give
// the same bytes, wherever the cache lies. What they gave before stands in RecordFile, and another kernel is not used.
package own

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/cosi-os/cosi/kernel/lock"
)

var (
	// ErrNoTool says that something is missing on this machine to build a kernel, or to know which one it would build.
	ErrNoTool = errors.New("hack/setup kernel installs what builds a kernel")
	// ErrNotBuilt says that the cache has no such kernel.
	ErrNotBuilt = errors.New("our own kernel is not in the cache")
)

// Kernel is one that can be built.
type Kernel struct {
	Architecture string
	// Source is Debian's package with the source.
	Source lock.Package
	// Files of the tree, with slashes, are what Options are read from.
	Files []string
	// Options are what the configuration asks for. It has nothing else but what these need and what has no name.
	Options []Option
	// Tools are what it is built with, by version. They decide what it becomes.
	Tools []string

	// recorded are the files that it became before, somewhere: see RecordFile.
	recorded map[string]recorded
}

// New reads the configuration of a tree and what it has recorded, and asks the machine for its tools. Errors name the file and line, or wrap ErrNoTool.
func New(ctx context.Context, tree, architecture string, source lock.Package) (*Kernel, error) {
	k := &Kernel{Architecture: architecture, Source: source, Files: filesOf(architecture)}
	var err error
	if k.Options, err = read(tree, k.Files); err != nil {
		return nil, err
	}
	prefix := machines[architecture].prefix
	for _, tool := range []string{prefix + "gcc", prefix + "ld", "pahole", "lz4"} {
		version, err := exec.CommandContext(ctx, tool, "--version").Output()
		if err != nil {
			return nil, fmt.Errorf("%s --version: %w; %w", tool, err, ErrNoTool)
		}
		first, _, _ := strings.Cut(string(version), "\n")
		k.Tools = append(k.Tools, tool+": "+strings.TrimSpace(first))
	}
	k.recorded, err = readRecord(tree, k.Digest())
	return k, err
}

// filesOf are the files of a tree that configure the kernel for an architecture.
func filesOf(architecture string) (files []string) {
	for _, name := range []string{"common", "hardening", architecture, "hardening-" + architecture} {
		files = append(files, Directory+"/"+name+".config")
	}
	return files
}

// machine is what Linux and Debian call an architecture, and what is built for it.
type machine struct {
	linux, prefix string
	target, image string
}

// Not even at home is the compiler called gcc alone: what it is called is seen in the kernel.
var machines = map[string]machine{
	"amd64": {"x86_64", "x86_64-linux-gnu-", "bzImage", "arch/x86/boot/bzImage"},
	// Firmware and QEMU want it as it is: of 64-bit ARM there is no kernel that unpacks itself for both.
	"arm64": {"arm64", "aarch64-linux-gnu-", "Image", "arch/arm64/boot/Image"},
}

// Digest is the hash of all that the kernel is built of and with.
func (k *Kernel) Digest() string {
	options := make([]string, len(k.Options))
	for i, o := range k.Options {
		options[i] = o.String()
	}
	data, err := json.Marshal([]any{k.Architecture, k.Source.SHA256, k.Source.Version, options, k.Tools, k.environment(), k.arguments("/")})
	if err != nil {
		data = fmt.Append(nil, err) // not for these types
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// Dir is where the kernel lies in a cache once it is built, as an unpacked package of Debian's with one would.
func (k *Kernel) Dir(cache string) string { return filepath.Join(cache, "kernels", k.Digest()) }

// Cached is Dir. It fails with ErrNotBuilt if nothing is there.
func (k *Kernel) Cached(cache string) (string, error) {
	dir := k.Dir(cache)
	if _, err := os.Stat(dir); err != nil {
		return "", fmt.Errorf("%s for %s: %w: make kernel ARCH=%s builds it", k.Source.Version, k.Architecture, ErrNotBuilt, k.Architecture)
	}
	return dir, nil
}
