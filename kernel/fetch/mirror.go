package fetch

import (
	"context"
	"fmt"
	"net/http"
	"path"
	"path/filepath"
	"strings"

	"github.com/cosi-os/cosi/kernel/lock"
)

// mirror is an archive that the user named, for hosts without apt. It need not be trusted: the pinned hash is checked.
type mirror struct{ url string }

func (m *mirror) String() string { return m.url }

func (m *mirror) download(ctx context.Context, p lock.Package, dir string) (string, error) {
	url := strings.TrimSuffix(m.url, "/") + "/" + strings.ReplaceAll(p.Path, "+", "%2B")
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	response, err := http.DefaultClient.Do(request)
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
	file := filepath.Join(dir, path.Base(p.Path))
	return file, write(file, response.Body)
}

// newest fails: without apt nobody vouches for a package that is not pinned.
func (m *mirror) newest(_ context.Context, p lock.Package, _ string) (lock.Package, string, error) {
	return lock.Package{}, "", fmt.Errorf("%s: %w; only apt can verify a successor: name another mirror (COSI_MIRROR=https://snapshot.debian.org/archive/debian/DATE) or update kernel/lock.yaml", m.url, ErrGone)
}
