// Package fetch brings pinned packages onto the build machine and unpacks them, once each.
//
// The image builder calls it. What it hands out has the SHA-256 of the lock file, or says that it has not (Result.Unpinned). It needs no
// root, and touches nothing outside its cache: apt runs with a state of its own.
package fetch

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cosi-os/cosi/kernel/deb"
	"github.com/cosi-os/cosi/kernel/lock"
)

var (
	// ErrGone says that the archive no longer has the pinned version.
	ErrGone = errors.New("the archive has it no more")
	// ErrHash says that a file is not what the lock file pins. Nothing is made of such a file.
	ErrHash = errors.New("wrong SHA-256")
	// ErrNoSource says that the machine offers no way to fetch a package.
	ErrNoSource = errors.New("no Debian archive is known here")
)

// Fetcher fetches packages into Cache. It is safe for concurrent use, by several processes too: files appear whole, under their hash.
type Fetcher struct {
	// Cache is a directory that outlives builds.
	Cache string
	// Mirror is the URL of a Debian archive that the user named. When empty, apt is asked, with the archive that this machine uses.
	Mirror string
	// Etc is where the machine is configured: /etc. apt is in apt, and os-release names the machine's own suite.
	Etc string
	// Log is told, in lines for people, what is fetched and what is wrong with it.
	Log func(format string, args ...any)
	// Progress is told again and again how many bytes of a package are there while it is downloaded, and 0 then; it may be nil.
	Progress func(bytes int64)

	silence time.Duration // 0: mostSilence
}

// Result is a package, unpacked.
type Result struct {
	// Package is what was fetched: the pinned one, or its successor.
	Package lock.Package
	// Unpinned says that it is the successor.
	Unpinned bool
	// Dir holds the package's regular files.
	Dir string
}

// Cached returns p unpacked, if it is in the cache.
func (f *Fetcher) Cached(p lock.Package) (Result, bool) {
	dir := f.unpacked(p)
	return Result{Package: p, Dir: dir}, exists(dir)
}

// Fetch returns p unpacked, from the cache if it is there. Three things may happen: the pinned package, ErrHash if what the archive
// hands out under that name is something else, or, where the archive has dropped it, the newest of its series with Unpinned set.
func (f *Fetcher) Fetch(ctx context.Context, p lock.Package) (Result, error) {
	result, there := f.Cached(p)
	if there {
		return result, nil
	}
	err := f.alone(func() (err error) {
		if result, there = f.Cached(p); !there {
			result, err = f.fetch(ctx, p)
		}
		return err
	})
	if err != nil {
		return Result{}, fmt.Errorf("fetch %s %s: %w", p.Name, p.Version, err)
	}
	return result, nil
}

// Download puts p's file into dir, which holds no other, and returns its path there: for a mirror of what is pinned. Three things may
// happen: the pinned package, ErrHash if what the archive hands out is something else, or ErrGone.
func (f *Fetcher) Download(ctx context.Context, p lock.Package, dir string) (file string, err error) {
	err = f.alone(func() error {
		source, err := f.source(p.Suite)
		if err != nil {
			return err
		}
		err = f.watched(dir, func() error {
			file, err = source.download(ctx, p, dir)
			return err
		})
		if err != nil {
			return err
		}
		return check(file, p)
	})
	if err != nil {
		return "", fmt.Errorf("download %s %s: %w", p.Name, p.Version, err)
	}
	return file, nil
}

// alone calls do while nobody else fetches, in this process or another: apt's state is one.
func (f *Fetcher) alone(do func() error) error {
	if err := os.MkdirAll(f.Cache, 0o755); err != nil {
		return err
	}
	guard, err := os.Create(filepath.Join(f.Cache, "lock"))
	if err != nil {
		return err
	}
	defer guard.Close() // releases it
	if err := unix.Flock(int(guard.Fd()), unix.LOCK_EX); err != nil {
		return fmt.Errorf("lock %s: %w", guard.Name(), err)
	}
	return do()
}

func (f *Fetcher) fetch(ctx context.Context, p lock.Package) (Result, error) {
	source, err := f.source(p.Suite)
	if err != nil {
		return Result{}, err
	}
	// Nobody else fetches: what is there was left by one that was killed.
	left, _ := filepath.Glob(filepath.Join(f.Cache, "fetch-*")) // the pattern is well-formed
	for _, dir := range left {
		os.RemoveAll(dir)
	}
	work, err := os.MkdirTemp(f.Cache, "fetch-")
	if err != nil {
		return Result{}, err
	}
	defer os.RemoveAll(work)

	f.Log("fetching %s %s from %s", p.Name, p.Version, source)
	var file string
	err = f.watched(work, func() error {
		file, err = source.download(ctx, p, work)
		return err
	})
	if err == nil {
		return Result{Package: p, Dir: f.unpacked(p)}, f.unpack(p, file, work)
	}
	if !errors.Is(err, ErrGone) {
		return Result{}, err
	}
	var next lock.Package
	err = f.watched(work, func() error {
		next, file, err = source.newest(ctx, p, work)
		return err
	})
	if err != nil {
		return Result{}, err
	}
	if next.SHA256, err = hash(file); err != nil {
		return Result{}, err
	}
	if exists(f.unpacked(next)) {
		os.RemoveAll(f.unpacked(next)) // its files are about to be renamed there
	}
	f.Log("WARNING: %s %s is gone from %s; taking %s %s instead. The image is marked unpinned: update kernel/lock.yaml.",
		p.Name, p.Version, source, next.Name, next.Version)
	return Result{Package: next, Unpinned: true, Dir: f.unpacked(next)}, f.unpack(next, file, work)
}

// source is where packages come from.
type source interface {
	// download puts the package into dir and returns its path there. It fails with ErrGone if the archive has no such version.
	download(ctx context.Context, p lock.Package, dir string) (string, error)
	// newest does the same with the newest package of p's series, and says which it is. The hash is left to the caller.
	newest(ctx context.Context, p lock.Package, dir string) (lock.Package, string, error)
	String() string
}

func (f *Fetcher) source(suite string) (source, error) {
	if f.Mirror != "" {
		return &mirror{url: f.Mirror, silence: cmp.Or(f.silence, mostSilence)}, nil
	}
	return f.apt(suite)
}

func (f *Fetcher) unpacked(p lock.Package) string {
	return filepath.Join(f.Cache, "packages", p.SHA256)
}

// unpack checks file's hash and puts its files into the cache, by way of work, so that they appear all at once.
func (f *Fetcher) unpack(p lock.Package, file, work string) error {
	if err := check(file, p); err != nil {
		return err
	}
	r, err := os.Open(file)
	if err != nil {
		return err
	}
	defer r.Close()
	tree := filepath.Join(work, "tree")
	if err := deb.Walk(r, func(file deb.File) error { return write(filepath.Join(tree, file.Path), file) }); err != nil {
		return err
	}
	target := f.unpacked(p)
	if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
		return err
	}
	return os.Rename(tree, target)
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func write(path string, r io.Reader) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	w, err := os.Create(path)
	if err != nil {
		return err
	}
	_, err = io.Copy(w, r)
	return errors.Join(err, w.Close())
}

// check fails with ErrHash if file is not p.
func check(file string, p lock.Package) error {
	got, err := hash(file)
	if err != nil {
		return err
	}
	if got != p.SHA256 {
		return fmt.Errorf("%s: %s; want %s: %w", filepath.Base(file), got, p.SHA256, ErrHash)
	}
	return nil
}

func hash(file string) (string, error) {
	r, err := os.Open(file)
	if err != nil {
		return "", err
	}
	defer r.Close()
	h := sha256.New()
	if _, err := io.Copy(h, r); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
