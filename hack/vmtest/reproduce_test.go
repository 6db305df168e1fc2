package vmtest_test

import (
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// full names an environment variable: COSI_REPRODUCE=full also downloads the packages for the second build.
const full = "COSI_REPRODUCE"

// Two builds of one commit, in different directories, by different users, the second with nothing compiled before, give the same bytes.
func TestTwoBuildsGiveTheSameBytes(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles everything twice")
	}
	first, second := newBuild(t, "first"), newBuild(t, "second/further/down")
	first.linkPackages(t)
	if os.Getenv(full) != "full" {
		second.linkPackages(t)
	}
	second.environment = append(second.environment, "GOCACHE="+filepath.Join(second.home, "go-build"), "TZ=Pacific/Auckland", "LC_ALL=C.UTF-8")
	if os.Getuid() == 0 {
		second.becomeNobody(t)
	}
	one, other := first.run(t), second.run(t)
	for _, format := range []string{"raw", "qcow2", "iso", "manifest.json"} {
		if one[format] == "" || one[format] != other[format] {
			t.Errorf("%s: SHA-256 %s and %s", format, one[format], other[format])
		}
	}
}

// build is one build with a checkout, a home and a cache of its own.
type build struct {
	tree, home, cache string
	environment       []string
	user              *syscall.SysProcAttr // nil: the same
}

// newBuild checks the commit out.
func newBuild(t *testing.T, name string) *build {
	t.Helper()
	// Not t.TempDir: nobody else can enter it.
	dir, err := os.MkdirTemp("", "cosi-reproduce-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	b := &build{tree: filepath.Join(dir, name, "tree"), home: filepath.Join(dir, "home"), cache: filepath.Join(dir, "cache")}
	for _, d := range []string{filepath.Dir(b.tree), b.home, b.cache} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	source := strings.TrimSpace(output(t, "git", "rev-parse", "--show-toplevel"))
	output(t, "git", "-c", "safe.directory=*", "clone", "--quiet", "--depth=1", "file://"+source, b.tree)
	b.environment = []string{"COSI_CACHE=" + b.cache, "GOMODCACHE=" + strings.TrimSpace(output(t, "go", "env", "GOMODCACHE")), "GOFLAGS="}
	return b
}

// linkPackages lets b use the packages that were fetched before, but no program.
func (b *build) linkPackages(t *testing.T) {
	t.Helper()
	cache := os.Getenv("COSI_CACHE")
	if cache == "" {
		dir, err := os.UserCacheDir()
		if err != nil {
			t.Fatal(err)
		}
		cache = filepath.Join(dir, "cosi")
	}
	packages := filepath.Join(cache, "packages")
	if _, err := os.Stat(packages); err != nil {
		t.Logf("packages are downloaded: %v", err)
		return
	}
	if err := os.Symlink(packages, filepath.Join(b.cache, "packages")); err != nil {
		t.Fatal(err)
	}
}

// becomeNobody makes b another user's, who may read the caches of this one.
func (b *build) becomeNobody(t *testing.T) {
	t.Helper()
	const nobody = 65534
	b.user = &syscall.SysProcAttr{
		Credential:  &syscall.Credential{Uid: nobody, Gid: nobody},
		AmbientCaps: []uintptr{unix.CAP_DAC_READ_SEARCH},
	}
	b.environment = append(b.environment, "HOME="+b.home, "USER=nobody")
	dir := filepath.Dir(b.home)
	err := filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, nobody, nobody)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// run builds the builder, then the image, and returns the SHA-256 of each output by its format.
func (b *build) run(t *testing.T) map[string]string {
	t.Helper()
	for _, argv := range [][]string{
		{"go", "build", "-trimpath", "-buildvcs=false", "-o", "build/bin/cosi-image", "./tools/cosi-image"},
		{"build/bin/cosi-image", "build", "-o", "build", "images/base.yaml"},
	} {
		cmd := exec.CommandContext(t.Context(), argv[0], argv[1:]...)
		cmd.Dir, cmd.Env, cmd.SysProcAttr = b.tree, append(os.Environ(), append(b.environment, "CGO_ENABLED=0")...), b.user
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", strings.Join(argv, " "), err, out)
		}
	}
	files, err := filepath.Glob(filepath.Join(b.tree, "build", "cosi-base-amd64.*"))
	if err != nil {
		t.Fatal(err)
	}
	sums := map[string]string{}
	for _, file := range files {
		sums[strings.TrimPrefix(filepath.Base(file), "cosi-base-amd64.")] = sum(t, file)
	}
	return sums
}

func sum(t *testing.T, file string) string {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%x", h.Sum(nil))
}

func output(t *testing.T, argv ...string) string {
	t.Helper()
	cmd := exec.Command(argv[0], argv[1:]...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(argv, " "), err, stderr.String())
	}
	return string(out)
}
