package upgrade

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"
)

// caFile, if the image has it, holds the certificates that servers are checked against.
const caFile = "/usr/lib/cosi/userdata-ca.pem"

// fetcher fetches a file by https or http.
type fetcher struct {
	credentials credentials
	checks      bool         // own does check whom it speaks to
	own         *http.Client // speaks to the location's registry and to its server of tokens, and is sent nowhere else by them
	others      *http.Client // speaks to all others, and knows nothing that is secret
}

// newFetcher fails when the certificates in a file, or those of the credentials, cannot be read.
func newFetcher(file string, c credentials) (*fetcher, error) {
	pool, err := certificates(file)
	if err != nil {
		return nil, err
	}
	own, err := c.pool(pool)
	if err != nil {
		return nil, err
	}
	return &fetcher{
		credentials: c, checks: own != nil,
		own:    &http.Client{Transport: transport(own), CheckRedirect: stay},
		others: &http.Client{Transport: transport(pool)},
	}, nil
}

func (f *fetcher) close() {
	f.own.CloseIdleConnections()
	f.others.CloseIdleConnections()
}

// transport checks servers against certificates. What arrives is checked by its digest, which came over the API: with none to check the server by, none
// is needed, as long as that is told no secret.
func transport(pool *x509.CertPool) *http.Transport {
	return &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: pool, InsecureSkipVerify: pool == nil}, ResponseHeaderTimeout: stalled, DisableCompression: true,
	}
}

// certificates returns nil if there is no such file. One without a certificate trusts nobody.
func certificates(file string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(file)
	if os.IsNotExist(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	return pool, nil
}

// maxRedirects is how often a server may send the node on.
const maxRedirects = 10

// stay follows redirects that do not leave the server. net/http alone would take an Authorization along to another port of the host, to the hosts below
// its name, and away from https.
func stay(next *http.Request, before []*http.Request) error {
	switch {
	case len(before) >= maxRedirects:
		return fmt.Errorf("more than %d redirects", maxRedirects)
	case !sameServer(next.URL, before[0].URL):
		return http.ErrUseLastResponse
	}
	return nil
}

// sameServer compares schemes, hosts and ports.
func sameServer(a, b *url.URL) bool {
	server := func(u *url.URL) string {
		return u.Scheme + "://" + strings.ToLower(strings.TrimSuffix(u.Host, map[string]string{"https": ":443", "http": ":80"}[u.Scheme]))
	}
	return server(a) == server(b)
}

// ask asks a server that may be told a secret. Where that sends the node on to, nobody is told one.
func (f *fetcher) ask(ctx context.Context, location, authorization string) (*http.Response, error) {
	response, err := get(ctx, f.own, location, authorization)
	if err != nil || response.StatusCode < 300 || response.StatusCode > 399 || response.Header.Get("Location") == "" {
		return response, err
	}
	response.Body.Close()
	next, err := response.Location()
	if err != nil {
		return nil, fmt.Errorf("%s: %s, to what is no URL", shown(location), response.Status)
	}
	return get(ctx, f.others, next.String(), "")
}

func get(ctx context.Context, client *http.Client, location, authorization string) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, location, nil)
	if err != nil {
		return nil, errors.New("url: cannot be read as one")
	}
	if authorization != "" {
		request.Header.Set("Authorization", authorization)
	}
	response, err := client.Do(request)
	if failed := (*url.Error)(nil); errors.As(err, &failed) {
		err = &url.Error{Op: failed.Op, URL: shown(failed.URL), Err: failed.Err}
	}
	return response, err
}

// shown is a location as a status may have it: a password in it, or what is behind the "?", by which a registry lets the node in at its store of blobs, may
// be a secret, and an Installation is Sensitive.
func shown(location string) string {
	u, err := url.Parse(location)
	if err != nil {
		return "the url"
	}
	return (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String()
}
