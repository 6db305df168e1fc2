package fetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cosi-os/cosi/kernel/fetch/archivetest"
	"github.com/cosi-os/cosi/kernel/lock"
)

// small is the smallest package: one file.
func small(name, version string) archivetest.Package {
	return archivetest.Package{Name: name, Version: version, Files: map[string]string{"usr/lib/" + name: "content of " + version}}
}

func pin(name, series, version string) lock.Package {
	p := small(name, version)
	return lock.Package{Role: "kernel", Architecture: "amd64", Suite: "trixie", Name: name, Series: series, Version: version, Path: p.Path(), SHA256: p.SHA256()}
}

func fetcher(t *testing.T, mirror string) (*Fetcher, *[]string) {
	log := &[]string{}
	return &Fetcher{Cache: t.TempDir(), Mirror: mirror, Log: func(format string, args ...any) {
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
		w.Write(small(p.Name, p.Version).Deb())
	}))
	defer server.Close()
	f, _ := fetcher(t, server.URL+"/debian/")
	if err := os.Mkdir(filepath.Join(f.Cache, "fetch-killed"), 0o700); err != nil {
		t.Fatal(err)
	}
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
		"when the package is another": {func(w http.ResponseWriter, _ *http.Request) { w.Write(small("linux", "1.0-2").Deb()) }, ErrHash},
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
			if file, err := f.Download(context.Background(), p, t.TempDir()); file != "" || !errors.Is(err, test.want) {
				t.Errorf("Download = %q, %v; want %v", file, err, test.want)
			}
		})
	}
}

// A server that says nothing any more is given up, whether it has begun or not; one that is slow is not.
func TestAMirrorThatStopsIsGivenUp(t *testing.T) {
	p := pin("linux", "linux*", "1.0-1")
	data := small("linux", "1.0-1").Deb()
	const silence = time.Second
	for name, test := range map[string]struct {
		answer func(w http.ResponseWriter, r *http.Request)
		says   string // empty: it succeeds
		is     error
	}{
		"before the answer": {func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, "no answer for 1s: ", ErrSilent},
		"in the middle": {func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", fmt.Sprint(len(data)))
			w.Write(data[:100])
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		}, fmt.Sprintf("after 100 of %d bytes: nothing for 1s: ", len(data)), ErrSilent},
		"in the middle of who knows how much": {func(w http.ResponseWriter, r *http.Request) {
			w.Write(data[:100])
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		}, "after 100 bytes: nothing for 1s: ", ErrSilent},
		"by closing": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", fmt.Sprint(len(data)))
			w.Write(data[:100])
		}, fmt.Sprintf("after 100 of %d bytes: unexpected EOF", len(data)), io.ErrUnexpectedEOF},
		"slow": {func(w http.ResponseWriter, _ *http.Request) {
			for i := range 8 {
				w.Write(data[i*len(data)/8 : (i+1)*len(data)/8])
				w.(http.Flusher).Flush()
				time.Sleep(silence / 4)
			}
		}, "", nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := httptest.NewServer(http.HandlerFunc(test.answer))
			t.Cleanup(server.Close)
			f, _ := fetcher(t, server.URL)
			f.silence = silence
			_, err := f.Fetch(t.Context(), p)
			if test.says == "" {
				if err != nil {
					t.Errorf("Fetch = %v", err)
				}
			} else if err == nil || !errors.Is(err, test.is) || !strings.Contains(err.Error(), server.URL+"/"+p.Path+": "+test.says) {
				t.Errorf("Fetch = %v; want %q", err, test.says)
			}
		})
	}
}

func TestProgressCountsTheBytesThatAreThere(t *testing.T) {
	p := pin("linux", "linux*", "1.0-1")
	data := small("linux", "1.0-1").Deb()
	told := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Write(data[:100])
		w.(http.Flusher).Flush()
		select {
		case <-told:
			w.Write(data[100:])
		case <-r.Context().Done():
		}
	}))
	defer server.Close()
	f, _ := fetcher(t, server.URL)
	first := sync.OnceFunc(func() { close(told) })
	f.Progress = func(n int64) {
		if n == 100 {
			first()
		}
	}
	f.silence = 10 * time.Second
	if _, err := f.Fetch(t.Context(), p); err != nil {
		t.Errorf("Fetch = %v; want it to tell of the first 100 bytes, and go on", err)
	}
}

func TestFetchSaysWhatToDoWithoutAnArchive(t *testing.T) {
	f, _ := fetcher(t, "")
	f.Etc = t.TempDir()
	_, err := f.Fetch(context.Background(), pin("linux", "linux*", "1.0-1"))
	if !errors.Is(err, ErrNoSource) || !strings.Contains(err.Error(), "COSI_MIRROR") {
		t.Errorf("Fetch = %v; want ErrNoSource and advice", err)
	}
}

func TestFetchByAptTakesThePinnedVersion(t *testing.T) {
	p := pin("linux-image-6.12.9-cloud-amd64", "linux-image-6.12.*-cloud-amd64", "6.12.9-1")
	f, log := fetcher(t, "")
	f.Etc = archivetest.Etc(t, small(p.Name, p.Version), small("linux-image-6.12.10-cloud-amd64", "6.12.10-1"))
	result, err := f.Fetch(context.Background(), p)
	if err != nil || result.Unpinned || result.Package != p {
		t.Fatalf("Fetch = %+v, %v", result, err)
	}
	if strings.Contains(strings.Join(*log, "\n"), "WARNING") {
		t.Errorf("log: %q", *log)
	}
	dir := t.TempDir()
	file, err := f.Download(context.Background(), p, dir)
	if err != nil || filepath.Dir(file) != dir {
		t.Fatalf("Download = %q, %v; want a file in %s", file, err, dir)
	}
	if data, err := os.ReadFile(file); string(data) != string(small(p.Name, p.Version).Deb()) {
		t.Errorf("the file has %d other bytes, %v", len(data), err)
	}
}

// A machine without a network is not told that the archive has dropped something.
func TestFetchByAptSaysThatTheArchiveWasNotReached(t *testing.T) {
	closed := httptest.NewServer(http.NotFoundHandler())
	closed.Close()
	f, _ := fetcher(t, "")
	f.Etc = archivetest.Etc(t)
	if err := os.WriteFile(filepath.Join(f.Etc, "apt/sources.list"), []byte("deb [trusted=yes] "+closed.URL+" bookworm main\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	_, err := f.Fetch(context.Background(), pin("linux-image-6.12.8", "linux-image-6.12.*", "6.12.8-1"))
	if err == nil || errors.Is(err, ErrGone) || !strings.Contains(err.Error(), strings.TrimPrefix(closed.URL, "http://")) {
		t.Errorf("Fetch = %v; want which archive was not reached, and not ErrGone", err)
	}
}

func TestFetchByAptFallsBackToTheNewestOfTheSeriesLoudly(t *testing.T) {
	series := "linux-image-6.12.*-cloud-amd64"
	gone, newest := pin("linux-image-6.12.8-cloud-amd64", series, "6.12.8-1"), pin("linux-image-6.12.10-cloud-amd64", series, "6.12.10-1")
	f, log := fetcher(t, "")
	f.Etc = archivetest.Etc(t, small("linux-image-6.12.9-cloud-amd64", "6.12.9-1"), small(newest.Name, newest.Version),
		small("linux-image-6.13.1-cloud-amd64", "6.13.1-1"), small("linux-image-6.12.11-cloud-amd64-unsigned", "6.12.11-1"))
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
	f, _ := fetcher(t, "")
	f.Etc = archivetest.Etc(t, small("other", "1"))
	if _, err := f.Fetch(context.Background(), pin("linux-image-6.12.8", "linux-image-6.12.*", "6.12.8-1")); !errors.Is(err, ErrGone) {
		t.Errorf("Fetch = %v; want ErrGone", err)
	}
}
