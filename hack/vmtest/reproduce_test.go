package vmtest_test

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cosi-os/cosi/hack/vmtest"
	image "github.com/cosi-os/cosi/images/build"
	"github.com/cosi-os/cosi/images/plan"
	"github.com/cosi-os/cosi/kernel/fetch"
)

// everything is an environment variable: COSI_REPRODUCE=full has both builds download the packages, and the second one the Go modules too
// (make reproduce).
const everything = "COSI_REPRODUCE"

// turkish is the locale of the second build.
const turkish = "tr_TR.UTF-8"

// Two builds of one commit give the same bytes: in different directories, time zones and locales, as different users, the second with empty caches. It
// has compiled nothing before, and has neither packages nor modules: it takes the modules from the first one's download cache, which go.sum verifies, and
// both take the packages from a mirror on this machine, which downloads each once and whose files the builder verifies by their pinned
// SHA-256. Unless it is started by root, the test can run nothing as somebody else, and says so.
func TestTwoBuildsGiveTheSameBytes(t *testing.T) {
	vmtest.Parallel(t, 100)
	if testing.Short() {
		t.Skip("compiles everything twice")
	}
	first, second := newBuild(t, "first"), newBuild(t, "second/further/down")
	modules := goEnv(t, "GOMODCACHE")
	first.set("GOMODCACHE", modules)
	second.set("GOMODCACHE", filepath.Join(second.home, "modules"))
	second.set("GOCACHE", filepath.Join(second.home, "go-build"))
	second.set("HOME", second.home)
	second.set("TZ", "Pacific/Auckland")
	// Turkish has an i of its own: what makes letters small or large by the locale, and not by what they are, shows.
	first.set("LC_ALL", "C.UTF-8")
	second.set("LC_ALL", turkish)
	second.set("LANGUAGE", "tr")
	if there, _ := exec.Command("locale", "-a").Output(); !strings.Contains(string(there), "tr_TR.utf8") {
		t.Logf("%s is not installed here: programs of the C library take it for C", turkish)
	}
	if os.Getenv(everything) == "full" {
		second.set("GOPROXY", goEnv(t, "GOPROXY"))
	} else {
		second.set("GOPROXY", "file://"+filepath.Join(modules, "cache/download"))
		mirrorPackages(t, first, second)
	}
	if os.Getuid() == 0 {
		second.becomeNobody(t)
	} else {
		t.Logf("both builds are user %d's: only root can start one as somebody else", os.Getuid())
	}
	one, other := first.run(t), second.run(t)
	suffixes := []string{".raw", ".qcow2", ".iso", ".vmlinuz", ".initramfs", ".efi", ".ipxe", ".vhd", ".gcp.tar.gz", ".oci.tar", ".raw.zst", ".raw.gz", ".raw.xz", ".upgrade", ".manifest.json", ".sha256"}
	if vmtest.Arch() == "amd64" {
		suffixes = append(suffixes, ".vmdk", ".ova")
	}
	for _, suffix := range slices.Concat(suffixes, plan.NetworkLoaders[vmtest.Arch()]) {
		if one[suffix] == "" || one[suffix] != other[suffix] {
			t.Errorf("%s: SHA-256 %s and %s", suffix, one[suffix], other[suffix])
		}
	}
}

// formats is the definition that is built.
func formats() string { return "images/" + vmtest.DefinitionFile("formats") }

// build is one build with a checkout, a home and a cache of its own.
type build struct {
	tree, home  string
	environment []string
	user        *syscall.SysProcAttr // nil: the same
}

// newBuild checks the commit out. Its cache is empty.
func newBuild(t *testing.T, name string) *build {
	t.Helper()
	// Not t.TempDir: nobody else can enter it.
	dir, err := os.MkdirTemp("", "cosi-reproduce-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// What go downloads may not be written to, nor removed.
		exec.Command("chmod", "-R", "u+w", dir).Run()
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	b := &build{tree: filepath.Join(dir, name, "tree"), home: filepath.Join(dir, "home")}
	for _, d := range []string{filepath.Dir(b.tree), b.home} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	source := strings.TrimSpace(output(t, "git", "rev-parse", "--show-toplevel"))
	output(t, "git", "-c", "safe.directory=*", "clone", "--quiet", "--depth=1", "file://"+source, b.tree)
	b.set("COSI_CACHE", filepath.Join(b.home, "cosi"))
	b.set("GOFLAGS", "")
	b.set("CGO_ENABLED", "0")
	// The toolchain that the module chose is not downloaded again.
	b.set("GOTOOLCHAIN", "local")
	b.set("PATH", filepath.Join(goEnv(t, "GOROOT"), "bin")+":"+os.Getenv("PATH"))
	return b
}

func (b *build) set(name, value string) { b.environment = append(b.environment, name+"="+value) }

// mirrorPackages downloads the packages of the base image, and has the builds take them from here. Where the archive has dropped one, each
// build is left to find its successor.
func mirrorPackages(t *testing.T, builds ...*build) {
	t.Helper()
	tree := filepath.Join("..", "..")
	plan, err := image.Plan(image.Options{Tree: tree}, filepath.Join(tree, formats()))
	if err != nil {
		t.Fatal(err)
	}
	cache, err := image.CacheDir()
	if err != nil {
		t.Fatal(err)
	}
	fetcher := &fetch.Fetcher{Cache: cache, Mirror: os.Getenv("COSI_MIRROR"), Etc: "/etc", Log: t.Logf}
	served := http.NewServeMux()
	for _, p := range plan.Packages() {
		file, err := fetcher.Download(t.Context(), p, t.TempDir())
		if errors.Is(err, fetch.ErrGone) {
			t.Logf("each build downloads its packages: %v", err)
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		served.HandleFunc("/"+p.Path, func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, file) })
	}
	server := httptest.NewServer(served)
	t.Cleanup(server.Close)
	for _, b := range builds {
		b.set("COSI_MIRROR", server.URL)
	}
}

// becomeNobody makes b another user's, who may read what is this one's: the toolchain, and what it has downloaded.
func (b *build) becomeNobody(t *testing.T) {
	t.Helper()
	const nobody = 65534
	b.user = &syscall.SysProcAttr{
		Credential:  &syscall.Credential{Uid: nobody, Gid: nobody},
		AmbientCaps: []uintptr{unix.CAP_DAC_READ_SEARCH},
	}
	b.set("USER", "nobody")
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
		{filepath.Join(goEnv(t, "GOROOT"), "bin/go"), "build", "-trimpath", "-buildvcs=false", "-o", "build/bin/cosi-image", "./tools/cosi-image"},
		{"build/bin/cosi-image", "build", "-o", "build", formats()},
	} {
		cmd := exec.CommandContext(t.Context(), argv[0], argv[1:]...)
		cmd.Dir, cmd.Env, cmd.SysProcAttr = b.tree, append(os.Environ(), b.environment...), b.user
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", strings.Join(argv, " "), err, out)
		}
	}
	image := "cosi-formats-" + vmtest.Arch()
	files, err := filepath.Glob(filepath.Join(b.tree, "build", image+".*"))
	if err != nil {
		t.Fatal(err)
	}
	sums := map[string]string{}
	for _, file := range files {
		sums[strings.TrimPrefix(filepath.Base(file), image)] = sum(t, file)
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

func goEnv(t *testing.T, name string) string {
	t.Helper()
	return strings.TrimSpace(output(t, "go", "env", name))
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
