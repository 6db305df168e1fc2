package build

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cosi-os/cosi/images/manifest"
	"github.com/cosi-os/cosi/images/plan"
	"github.com/cosi-os/cosi/kernel/lock"
	"github.com/cosi-os/cosi/kernel/own"
)

// Inputs are those of the manifest, and what else decides whether an image is built again.
type Inputs struct {
	manifest.Inputs

	// builder is the hash of the running program: another builder may write the same inputs differently.
	builder string
	// sources is the hash of what is compiled.
	sources string
	// own is our own kernel; nil: Debian's.
	own *own.Kernel
}

// compiled are the directories whose files end up in programs of the image.
var compiled = []string{"api", "engine", "plugins", "sdk"}

// concerns are the paths whose changes make a version dirty.
var concerns = append([]string{"go.mod", "go.sum", "images", "initramfs", "kernel"}, compiled...)

func readInputs(ctx context.Context, o Options, p *plan.Plan) (*Inputs, error) {
	in := &Inputs{Inputs: manifest.Inputs{Files: map[string]string{}}}
	for _, dir := range compiled {
		if err := in.addTree(o.Tree, dir); err != nil {
			return nil, err
		}
	}
	for _, file := range []string{"go.mod", "go.sum"} {
		if err := in.addFile(o.Tree, file); err != nil {
			return nil, err
		}
	}
	toolchain, err := run(ctx, o.Tree, "go", "env", "GOVERSION")
	if err != nil {
		return nil, err
	}
	in.Go = toolchain
	in.sources = digest(in.Files, in.Go, p.Definition.Arch)

	named := &namedFiles{definition: p.Definition, in: in, names: namesOf(o, p.Definition), paths: map[string]string{}}
	if err := named.all(); err != nil {
		return nil, err
	}
	if err := in.addFile(o.Tree, LockFile); err != nil {
		return nil, err
	}
	if in.builder, err = builder(); err != nil {
		return nil, err
	}
	return in, in.identify(ctx, o, p.Definition.Epoch)
}

// addKernel finds out which kernel it is, where it is our own.
func (in *Inputs) addKernel(ctx context.Context, o Options, p *plan.Plan) (err error) {
	if p.Kernel[0].Role != lock.KernelOwn {
		return nil
	}
	if in.own, err = own.New(ctx, o.Tree, p.Definition.Arch, p.Kernel[0]); err != nil {
		return err
	}
	for _, file := range in.own.Files {
		if err := in.addFile(o.Tree, file); err != nil {
			return err
		}
	}
	in.KernelTools = in.own.Tools
	return nil
}

func (in *Inputs) addTree(tree, dir string) error {
	return filepath.WalkDir(filepath.Join(tree, dir), func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := entry.Name()
		if entry.IsDir() && (name == "testdata" || name[0] == '.') {
			return filepath.SkipDir
		}
		if !entry.Type().IsRegular() || strings.HasSuffix(name, "_test.go") || name[0] == '.' || slices.Contains([]string{".proto", ".md"}, filepath.Ext(name)) {
			return nil
		}
		relative, err := filepath.Rel(tree, path)
		if err != nil {
			return err
		}
		return in.addFile(tree, relative)
	})
}

func (in *Inputs) addFile(tree, file string) error {
	data, err := os.ReadFile(filepath.Join(tree, file))
	if err != nil {
		return err
	}
	in.Files[file] = sum(data)
	return nil
}

// identify finds the image's version and time. Git is asked whoever owns the tree: the same tree must give the same image to everybody.
func (in *Inputs) identify(ctx context.Context, o Options, epoch time.Time) error {
	version, err := os.ReadFile(filepath.Join(o.Tree, "images", "VERSION"))
	if err != nil {
		return err
	}
	in.Version, in.Epoch = strings.TrimSpace(string(version)), epoch
	git := func(arguments ...string) (string, error) {
		return run(ctx, o.Tree, "git", append([]string{"-c", "safe.directory=*", "--no-optional-locks"}, arguments...)...)
	}
	// Without git, or outside a repository, the version and the definition's time must do.
	if commit, err := git("log", "-1", "--format=%h %ct", "--abbrev=12"); err == nil {
		hash, seconds, _ := strings.Cut(commit, " ")
		unix, err := strconv.ParseInt(seconds, 10, 64)
		if err != nil {
			return fmt.Errorf("git log: %q: %w", commit, err)
		}
		in.Version, in.Epoch = in.Version+"+"+hash, time.Unix(unix, 0).UTC()
		changes, err := git(append([]string{"status", "--porcelain", "--"}, concerns...)...)
		if err != nil {
			return err
		}
		if changes != "" {
			in.Version += ".dirty"
		}
	}
	if o.SourceDateEpoch != "" {
		unix, err := strconv.ParseInt(o.SourceDateEpoch, 10, 64)
		if err != nil || unix < 0 {
			return fmt.Errorf("SOURCE_DATE_EPOCH: %q is not a number of seconds", o.SourceDateEpoch)
		}
		in.Epoch = time.Unix(unix, 0).UTC()
	}
	return nil
}

// digest of all inputs, the builder among them.
func (in *Inputs) digest() string { return digest(in.Inputs, in.builder) }

// digest hashes values by way of JSON, which sorts maps.
func digest(values ...any) string {
	h := sha256.New()
	for _, v := range values {
		data, err := json.Marshal(v)
		if err != nil {
			data = fmt.Append(nil, err) // not for the types above
		}
		h.Write(append(data, '\n'))
	}
	return hex.EncodeToString(h.Sum(nil))
}

func sum(data []byte) string {
	h := sha256.Sum256(data)
	return hex.EncodeToString(h[:])
}

func builder() (string, error) {
	path, err := os.Executable()
	if err != nil {
		return "", err
	}
	return manifest.Sum(path)
}

// run returns what a command of the build machine prints.
func run(ctx context.Context, dir, command string, arguments ...string) (string, error) {
	cmd := exec.CommandContext(ctx, command, arguments...)
	cmd.Dir = dir
	stderr := &bytes.Buffer{}
	cmd.Stderr = stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w\n%s", command, arguments[0], err, bytes.TrimSpace(stderr.Bytes()))
	}
	return strings.TrimSpace(string(out)), nil
}
