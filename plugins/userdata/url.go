package userdata

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"time"
)

// caFile, if the image has it, holds the certificates that user data over https is checked against: the pinned CA.
const caFile = "usr/lib/cosi/userdata-ca.pem"

const fetchTimeout = 20 * time.Second

// fetch reads user data from a URL. It is authenticated by a pinned CA or by "#sha256=HEX" in the URL.
func fetch(ctx context.Context, root, address string) *found {
	f := &found{source: sourceURL, id: sourceURL, name: address}
	location, err := url.Parse(address)
	if err != nil {
		f.err = refused("cosi.userdata: %v", err)
		return f
	}
	if location.Scheme != "http" && location.Scheme != "https" {
		f.err = refused("cosi.userdata: %q is neither http, https nor data", location.Scheme)
		return f
	}
	digest, pinnedDigest := strings.CutPrefix(location.Fragment, "sha256=")
	if location.Fragment != "" && (!pinnedDigest || len(digest) != 2*sha256.Size) {
		f.err = refused("cosi.userdata: #%s is not #sha256= and 64 hex digits", location.Fragment)
		return f
	}
	location.Fragment = ""
	f.name = location.Redacted()
	pool, err := pinnedCA(root)
	if err != nil {
		f.err = err
		return f
	}
	f.unauthenticated = !pinnedDigest && (pool == nil || location.Scheme == "http")
	if f.data, f.err = get(ctx, location.String(), pool); f.err != nil {
		return f
	}
	if sum := sha256.Sum256(f.data); pinnedDigest && hex.EncodeToString(sum[:]) != strings.ToLower(digest) {
		f.data, f.err = nil, refused("%s: SHA-256 is %x, cosi.userdata says %s", f.name, sum, digest)
	}
	return f
}

// pinnedCA returns nil if the image pins none. A file that holds no certificate trusts nobody.
func pinnedCA(root string) (*x509.CertPool, error) {
	pem, err := readFile(filepath.Join(root, caFile))
	if pem == nil || err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	return pool, nil
}

// get fetches address. Without a pinned CA the certificate proves nothing about user data, so it is not looked at; the caller then shows
// the source as unauthenticated or knows the digest.
func get(ctx context.Context, address string, pool *x509.CertPool) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, err
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, InsecureSkipVerify: pool == nil}}
	defer transport.CloseIdleConnections()
	response, err := (&http.Client{Transport: transport, CheckRedirect: stayOnHTTPS}).Do(request)
	if failed := (*url.Error)(nil); errors.As(err, &failed) && errors.Is(err, errRefused) {
		return nil, failed.Err // it says from where to where
	}
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", address, response.Status)
	}
	return readAll(response.Body)
}

// stayOnHTTPS refuses a redirect that leaves https: whoever names an https URL counts on it, to the last byte. The certificate of each
// server on the way is checked like the first one's.
func stayOnHTTPS(next *http.Request, before []*http.Request) error {
	if last := before[len(before)-1].URL; last.Scheme == "https" && next.URL.Scheme != "https" {
		return refused("%s redirects to %s, away from https", last.Redacted(), next.URL.Redacted())
	}
	if len(before) >= maxRedirects {
		return fmt.Errorf("more than %d redirects", maxRedirects)
	}
	return nil
}

const maxRedirects = 10
