package fetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/cosi-os/cosi/kernel/lock"
)

// mostSilence is how long a mirror may send nothing: as long as apt's archives may.
const mostSilence = 30 * time.Second

// ErrSilent says that a mirror has stopped sending.
var ErrSilent = errors.New("the server has stopped sending")

// mirror is an archive that the user named, for hosts without apt. It need not be trusted: the pinned hash is checked.
type mirror struct {
	url string
	// silence ends a download in which nothing comes for so long, however long the whole takes.
	silence time.Duration
}

func (m *mirror) String() string { return m.url }

func (m *mirror) download(ctx context.Context, p lock.Package, dir string) (string, error) {
	url := strings.TrimSuffix(m.url, "/") + "/" + strings.ReplaceAll(p.Path, "+", "%2B")
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	silent := time.AfterFunc(m.silence, func() { cancel(ErrSilent) })
	defer silent.Stop()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	response, err := http.DefaultClient.Do(request)
	if context.Cause(ctx) == ErrSilent {
		return "", fmt.Errorf("%s: no answer for %v: %w", url, m.silence, ErrSilent)
	}
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	switch response.StatusCode {
	case http.StatusOK:
	case http.StatusNotFound, http.StatusGone:
		return "", fmt.Errorf("%s: %s: %w", url, response.Status, ErrGone)
	default:
		return "", fmt.Errorf("%s: %s", url, response.Status)
	}
	body := &heard{Reader: response.Body, hear: func() { silent.Reset(m.silence) }}
	file := filepath.Join(dir, path.Base(p.Path))
	err = write(file, body)
	if err != nil && context.Cause(ctx) == ErrSilent {
		err = fmt.Errorf("nothing for %v: %w", m.silence, ErrSilent)
	}
	if err != nil {
		of := ""
		if response.ContentLength >= 0 {
			of = fmt.Sprintf(" of %d", response.ContentLength)
		}
		return "", fmt.Errorf("%s: after %d%s bytes: %w", url, body.n, of, err)
	}
	return file, nil
}

// heard counts what is read, and says so each time.
type heard struct {
	io.Reader
	hear func()
	n    int64
}

func (h *heard) Read(p []byte) (int, error) {
	n, err := h.Reader.Read(p)
	if n > 0 {
		h.n += int64(n)
		h.hear()
	}
	return n, err
}

// newest fails: without apt nobody vouches for a package that is not pinned.
func (m *mirror) newest(_ context.Context, p lock.Package, _ string) (lock.Package, string, error) {
	return lock.Package{}, "", fmt.Errorf("%s: %w; only apt can verify a successor: name another mirror (COSI_MIRROR=https://snapshot.debian.org/archive/debian/DATE) or update kernel/lock.yaml", m.url, ErrGone)
}
