package fetch

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cosi-os/cosi/kernel/lock"
)

// pack is the smallest package: one file, and the control file that apt reads.
func pack(name, version string) []byte {
	out := bytes.NewBufferString("!<arch>\n")
	for _, member := range []struct{ name, file, content string }{
		{"control.tar", "./control", fmt.Sprintf("Package: %s\nVersion: %s\nArchitecture: amd64\nMaintainer: x\nDescription: x\n", name, version)},
		{"data.tar", "./usr/lib/" + name, "content of " + version},
	} {
		if member.name == "control.tar" {
			fmt.Fprintf(out, "%-16s%-12d%-6d%-6d%-8s%-10d`\n2.0\n", "debian-binary", 0, 0, 0, "100644", 4)
		}
		data := &bytes.Buffer{}
		archive := tar.NewWriter(data)
		archive.WriteHeader(&tar.Header{Name: member.file, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(member.content))})
		io.WriteString(archive, member.content)
		archive.Close()
		fmt.Fprintf(out, "%-16s%-12d%-6d%-6d%-8s%-10d`\n", member.name, 0, 0, 0, "100644", data.Len())
		out.Write(data.Bytes())
	}
	return out.Bytes()
}

func pin(name, series, version string) lock.Package {
	return lock.Package{Role: "kernel", Architecture: "amd64", Name: name, Series: series, Version: version,
		Path: "pool/" + name + "_" + version + "_amd64.deb", SHA256: fmt.Sprintf("%x", sha256.Sum256(pack(name, version)))}
}

func fetcher(t *testing.T, mirror string) (*Fetcher, *[]string) {
	log := &[]string{}
	return &Fetcher{Cache: t.TempDir(), Mirror: mirror, Suite: "trixie", Log: func(format string, args ...any) {
		*log = append(*log, fmt.Sprintf(format, args...))
	}}, log
}

func TestFetchFromAMirrorOnce(t *testing.T) {
	p := pin("linux+x", "linux*", "1.0-1")
	requests := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests++
		if r.URL.Path != "/debian/"+p.Path {
			http.NotFound(w, r)
			return
		}
		w.Write(pack(p.Name, p.Version))
	}))
	defer server.Close()
	f, _ := fetcher(t, server.URL+"/debian/")
	for range 2 {
		result, err := f.Fetch(context.Background(), p)
		if err != nil || result.Unpinned || result.Package != p {
			t.Fatalf("Fetch = %+v, %v", result, err)
		}
		if content, err := os.ReadFile(filepath.Join(result.Dir, "usr/lib/linux+x")); string(content) != "content of 1.0-1" {
			t.Errorf("the package's file holds %q, %v", content, err)
		}
	}
	if requests != 1 {
		t.Errorf("%d requests; want 1", requests)
	}
	if left, _ := filepath.Glob(filepath.Join(f.Cache, "fetch-*")); len(left) != 0 {
		t.Errorf("%q left behind", left)
	}
}

func TestFetchFromAMirrorFails(t *testing.T) {
	p := pin("linux", "linux*", "1.0-1")
	for name, test := range map[string]struct {
		answer http.HandlerFunc
		want   error
	}{
		"when the package is another": {func(w http.ResponseWriter, _ *http.Request) { w.Write(pack("linux", "1.0-2")) }, ErrHash},
		"when it is gone":             {http.NotFound, ErrGone},
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(test.answer)
			defer server.Close()
			f, _ := fetcher(t, server.URL)
			if _, err := f.Fetch(context.Background(), p); !errors.Is(err, test.want) {
				t.Errorf("Fetch = %v; want %v", err, test.want)
			}
			if exists(f.unpacked(p)) {
				t.Error("something was unpacked all the same")
			}
		})
	}
}

func TestFetchSaysWhatToDoWithoutAnArchive(t *testing.T) {
	f, _ := fetcher(t, "")
	f.Etc, f.OSRelease = t.TempDir(), "/nonexistent"
	_, err := f.Fetch(context.Background(), pin("linux", "linux*", "1.0-1"))
	if !errors.Is(err, ErrNoSource) || !strings.Contains(err.Error(), "COSI_MIRROR") {
		t.Errorf("Fetch = %v; want ErrNoSource and advice", err)
	}
}

// archive makes a Debian archive with an unsigned Release file, and apt's configuration of a machine that trusts it.
func archive(t *testing.T, packages ...lock.Package) (etc, osRelease string) {
	root := t.TempDir()
	index := &strings.Builder{}
	for _, p := range packages {
		data := pack(p.Name, p.Version)
		writeFile(t, filepath.Join(root, p.Path), string(data))
		fmt.Fprintf(index, "Package: %s\nVersion: %s\nArchitecture: amd64\nFilename: %s\nSize: %d\nSHA256: %x\n\n", p.Name, p.Version, p.Path, len(data), sha256.Sum256(data))
	}
	const name = "main/binary-amd64/Packages"
	release := fmt.Sprintf("Suite: trixie\nCodename: trixie\nArchitectures: amd64\nComponents: main\nDate: Sat, 01 Nov 2025 00:00:00 UTC\nSHA256:\n %x %d %s\n",
		sha256.Sum256([]byte(index.String())), index.Len(), name)
	writeFile(t, filepath.Join(root, "dists/trixie", name), index.String())
	writeFile(t, filepath.Join(root, "dists/trixie/Release"), release)
	etc = t.TempDir()
	writeFile(t, filepath.Join(etc, "sources.list"), "deb [trusted=yes] file:"+root+" bookworm main\n")
	osRelease = filepath.Join(etc, "os-release")
	writeFile(t, osRelease, "ID=debian\nVERSION_CODENAME=bookworm\n")
	return etc, osRelease
}

func TestFetchByAptTakesThePinnedVersion(t *testing.T) {
	needApt(t)
	p := pin("linux-image-6.12.9-cloud-amd64", "linux-image-6.12.*-cloud-amd64", "6.12.9-1")
	f, log := fetcher(t, "")
	f.Etc, f.OSRelease = archive(t, p, pin("linux-image-6.12.10-cloud-amd64", "*", "6.12.10-1"))
	result, err := f.Fetch(context.Background(), p)
	if err != nil || result.Unpinned || result.Package != p {
		t.Fatalf("Fetch = %+v, %v", result, err)
	}
	if strings.Contains(strings.Join(*log, "\n"), "WARNING") {
		t.Errorf("log: %q", *log)
	}
}

func TestFetchByAptFallsBackToTheNewestOfTheSeriesLoudly(t *testing.T) {
	needApt(t)
	series := "linux-image-6.12.*-cloud-amd64"
	gone, newest := pin("linux-image-6.12.8-cloud-amd64", series, "6.12.8-1"), pin("linux-image-6.12.10-cloud-amd64", series, "6.12.10-1")
	f, log := fetcher(t, "")
	f.Etc, f.OSRelease = archive(t, pin("linux-image-6.12.9-cloud-amd64", "*", "6.12.9-1"), newest, pin("linux-image-6.13.1-cloud-amd64", "*", "6.13.1-1"),
		pin("linux-image-6.12.11-cloud-amd64-unsigned", "*", "6.12.11-1"))
	result, err := f.Fetch(context.Background(), gone)
	if err != nil || !result.Unpinned || result.Package != newest {
		t.Fatalf("Fetch = %+v, %v; want %+v, unpinned", result, err, newest)
	}
	if said := strings.Join(*log, "\n"); !strings.Contains(said, "WARNING") || !strings.Contains(said, gone.Name) || !strings.Contains(said, newest.Version) {
		t.Errorf("log: %q", said)
	}
	if file := filepath.Join(result.Dir, "usr/lib", path.Base(newest.Name)); !exists(file) {
		t.Errorf("%s is missing", file)
	}
}

func TestFetchByAptFailsWhereTheSeriesIsGone(t *testing.T) {
	needApt(t)
	f, _ := fetcher(t, "")
	f.Etc, f.OSRelease = archive(t, pin("other", "*", "1"))
	if _, err := f.Fetch(context.Background(), pin("linux-image-6.12.8", "linux-image-6.12.*", "6.12.8-1")); !errors.Is(err, ErrGone) {
		t.Errorf("Fetch = %v; want ErrGone", err)
	}
}

func needApt(t *testing.T) {
	if _, err := exec.LookPath("apt-get"); err != nil {
		t.Skip("apt-get is not here")
	}
}
