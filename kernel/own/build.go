package own

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Builder builds kernels into a cache.
type Builder struct {
	Cache string
	// Phase is called when a phase begins; what it returns is called when the phase ends, with a note.
	Phase func(name string) (done func(note string))
}

// Build builds k of its source, unpacked from its package into the directory source, and returns where it lies. A build that was broken off goes on where it
// was. What the compiler says is in a file of the cache, which errors name. A kernel that is not the recorded one fails with ErrOther, and is left beside where
// it would lie, with the directory that it was compiled in.
func (b *Builder) Build(ctx context.Context, k *Kernel, source string) (string, error) {
	top := filepath.Join(b.Cache, "kernels")
	if err := os.MkdirAll(top, 0o755); err != nil {
		return "", err
	}
	release, err := exclusively(filepath.Join(top, k.Architecture+".lock"))
	if err != nil {
		return "", err
	}
	defer release()
	if dir, err := k.Cached(b.Cache); err == nil {
		return dir, nil // another process has built it meanwhile
	}
	w := &work{kernel: k, dir: filepath.Join(top, k.Architecture+".work"), log: filepath.Join(top, k.Architecture+".log")}
	for _, step := range []struct {
		name string
		do   func(context.Context) error
	}{
		{"unpack", func(ctx context.Context) error { return w.unpack(ctx, source) }},
		{"configure", w.configure},
		{"compile", w.compile},
		{"install", func(context.Context) error { return w.install(k.Dir(b.Cache)) }},
	} {
		done := b.Phase(step.name)
		if err := step.do(ctx); err != nil {
			return "", fmt.Errorf("%s: %w", step.name, err)
		}
		done("")
	}
	return k.Dir(b.Cache), os.RemoveAll(w.dir) // several GB
}

// exclusively waits until nobody else holds the lock of a file.
func exclusively(file string) (release func() error, err error) {
	f, err := os.Create(file)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", file, err), f.Close())
	}
	return f.Close, nil
}

// work is a build under way.
type work struct {
	kernel   *Kernel
	dir, log string
}

const (
	// sourceFile in the directory says which source is unpacked there.
	sourceFile = ".cosi-source"
	// optionsFile has the options.
	optionsFile = ".cosi-options"
)

// unpack unpacks the source, unless it is there.
func (w *work) unpack(ctx context.Context, source string) error {
	want := w.kernel.Source.SHA256 + "\n"
	if have, err := os.ReadFile(filepath.Join(w.dir, sourceFile)); err == nil && string(have) == want {
		return nil
	}
	archives, err := filepath.Glob(filepath.Join(source, "usr/src/linux-source-*.tar.xz"))
	if err != nil || len(archives) != 1 {
		return fmt.Errorf("%s: %d sources of Linux; want 1", source, len(archives))
	}
	if err := errors.Join(os.RemoveAll(w.dir), os.Mkdir(w.dir, 0o755)); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "tar", "--extract", "--strip-components=1", "--directory", w.dir, "--file", archives[0])
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("tar %s: %w\n%s", archives[0], err, out)
	}
	return os.WriteFile(filepath.Join(w.dir, sourceFile), []byte(want), 0o644)
}

// configure turns on the options and what they need, and nothing else.
func (w *work) configure(ctx context.Context) error {
	text := &strings.Builder{}
	for _, o := range w.kernel.Options {
		fmt.Fprintln(text, o)
	}
	if err := os.WriteFile(filepath.Join(w.dir, optionsFile), []byte(text.String()), 0o644); err != nil {
		return err
	}
	if err := w.make(ctx, "allnoconfig"); err != nil {
		return err
	}
	configuration, err := os.ReadFile(filepath.Join(w.dir, ".config"))
	if err != nil {
		return err
	}
	return w.kernel.Lacking(string(configuration))
}

func (w *work) compile(ctx context.Context) error {
	return w.make(ctx, "-j"+strconv.Itoa(runtime.NumCPU()), machines[w.kernel.Architecture].target)
}

// environment is what a kernel says of when, where and by whom it was built: nothing but what it was built of.
func (k *Kernel) environment() []string {
	return []string{
		"KBUILD_BUILD_TIMESTAMP=1970-01-01", "KBUILD_BUILD_VERSION=1", "KBUILD_BUILD_USER=cosi", "KBUILD_BUILD_HOST=cosi",
		"KBUILD_BUILD_VERSION_TIMESTAMP=Debian " + k.Source.Version, "KCONFIG_ALLCONFIG=" + optionsFile, "LC_ALL=C", "TZ=UTC",
	}
}

// arguments of make are the same whatever is built. The directory is seen in nothing that becomes of it.
func (k *Kernel) arguments(dir string) []string {
	m, flags := machines[k.Architecture], "-ffile-prefix-map="+dir+"=."
	return []string{
		"-C", dir, "ARCH=" + m.linux, "CROSS_COMPILE=" + m.prefix, "KCFLAGS=" + flags, "KAFLAGS=" + flags,
		// In a kernel without 32-bit programs blkdev_common_ioctl has one caller, and would be a part of it: block-events hears that function.
		"CFLAGS_ioctl.o=-fno-inline-functions-called-once",
		// Nothing is compiled by it, but the configuration, which is in the kernel, would say which one this machine has.
		"RUSTC=false",
	}
}

// make runs make in the directory, with what it says going to the log.
func (w *work) make(ctx context.Context, arguments ...string) error {
	log, err := os.Create(w.log)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.CommandContext(ctx, "make", append(w.kernel.arguments(w.dir), arguments...)...)
	cmd.Stdout, cmd.Stderr = log, log
	// Nothing else, so that what a user has set (KCONFIG_CONFIG, MAKEFLAGS, CC) changes no byte.
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH")}, w.kernel.environment()...)
	cmd.SysProcAttr = &unix.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return unix.Kill(-cmd.Process.Pid, unix.SIGTERM) }
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("make %s: %w: see %s", arguments[len(arguments)-1], err, w.log)
	}
	return nil
}

// install puts what images need into dir, all at once, in the places that Debian's packages have them in.
func (w *work) install(dir string) error {
	release, err := os.ReadFile(filepath.Join(w.dir, "include/config/kernel.release"))
	if err != nil {
		return err
	}
	name := strings.TrimSpace(string(release))
	temporary, err := os.MkdirTemp(filepath.Dir(dir), ".new-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(temporary)
	modules := filepath.Join(temporary, "usr/lib/modules", name)
	for _, made := range []string{filepath.Join(temporary, "boot"), filepath.Join(modules, "kernel")} {
		if err := os.MkdirAll(made, 0o755); err != nil {
			return err
		}
	}
	for from, to := range map[string]string{
		machines[w.kernel.Architecture].image: "boot/vmlinuz-" + name,
		".config":                             "boot/config-" + name,
		"System.map":                          "boot/System.map-" + name,
		"modules.builtin":                     "usr/lib/modules/" + name + "/modules.builtin",
	} {
		if err := copyFile(filepath.Join(w.dir, from), filepath.Join(temporary, to)); err != nil {
			return err
		}
	}
	if err := os.Chmod(temporary, 0o755); err != nil {
		return err
	}
	if err := w.kernel.Check(temporary); errors.Is(err, ErrOther) {
		return w.putAside(temporary, dir+".other")
	} else if err != nil && !errors.Is(err, ErrNotRecorded) {
		return err
	}
	return os.Rename(temporary, dir)
}

// putAside keeps in dir a kernel that is not the recorded one, for whoever wants to know why, and says in what it differs.
func (w *work) putAside(from, dir string) error {
	if err := errors.Join(os.RemoveAll(dir), os.Rename(from, dir)); err != nil {
		return err
	}
	return fmt.Errorf("%w\nit was compiled in %s, which is left; without that it is built from the start", w.kernel.Check(dir), w.dir)
}

func copyFile(from, to string) error {
	r, err := os.Open(from)
	if err != nil {
		return err
	}
	defer r.Close()
	w, err := os.Create(to)
	if err != nil {
		return err
	}
	_, err = io.Copy(w, r)
	return errors.Join(err, w.Close())
}
