package upgrade

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
)

// maxToken is the size of the longest answer of a server of tokens, in bytes.
const maxToken = 64 << 10

// errDenied: a registry wants other credentials than there are, or some. Asking again as before changes nothing, and may have an account locked.
var errDenied = errors.New("not let in")

// fetch asks for what is at a location. At "oci://HOST/REPOSITORY" that is a blob of a registry, found by its digest as the OCI Distribution
// Specification 1.1 says, whatever manifest names it. A registry that wants to know who asks is told what there is for it. fetch fails with errDenied
// if that is not enough.
func (f *fetcher) fetch(ctx context.Context, location, digest string) (*http.Response, error) {
	if registryOf(location) == "" {
		return get(ctx, f.others, location, "")
	}
	host, repository, _ := strings.Cut(strings.TrimPrefix(location, "oci://"), "/")
	blob := &url.URL{Scheme: "https", Host: host, Path: "/v2/" + repository + "/blobs/sha256:" + digest}
	response, err := f.ask(ctx, blob.String(), "")
	if err != nil || response.StatusCode != http.StatusUnauthorized {
		return response, err
	}
	response.Body.Close()
	if at := response.Request.URL; !sameServer(at, blob) {
		return nil, fmt.Errorf("%s: it sends the node on to %s, and that says %s", location, at.Host, response.Status)
	}
	response, err = f.answer(ctx, blob.String(), challenges(response.Header.Values("WWW-Authenticate")))
	if err != nil {
		return nil, fmt.Errorf("%s: %d %s: %w", location, http.StatusUnauthorized, http.StatusText(http.StatusUnauthorized), err)
	}
	return response, nil
}

// answer asks for a blob again, with what its registry wants to hear.
func (f *fetcher) answer(ctx context.Context, blob string, wanted []challenge) (*http.Response, error) {
	if bearer, ok := by("bearer", wanted); ok {
		token, err := f.token(ctx, bearer)
		if err != nil {
			return nil, err
		}
		return f.admitted(ctx, blob, "Bearer "+token)
	}
	if _, ok := by("basic", wanted); !ok {
		var schemes []string
		for _, c := range wanted {
			schemes = append(schemes, c.scheme)
		}
		return nil, fmt.Errorf("it wants to be answered by %q, and the node knows Basic and Bearer", schemes)
	}
	basic, err := f.basic()
	if err == nil && basic == "" {
		err = f.denied()
	}
	if err != nil {
		return nil, err
	}
	return f.admitted(ctx, blob, basic)
}

// token has a token made, for the one that the credentials are of, or for everybody if there are none.
func (f *fetcher) token(ctx context.Context, bearer challenge) (string, error) {
	where, err := tokenURL(bearer)
	if err != nil {
		return "", err
	}
	basic, err := f.basic()
	if err != nil {
		return "", err
	}
	response, err := f.admitted(ctx, where, basic)
	if err != nil {
		return "", fmt.Errorf("%s: %w", shown(where), err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return "", fmt.Errorf("%s: %s", shown(where), response.Status)
	}
	token, err := readToken(response.Body)
	if err != nil {
		return "", fmt.Errorf("%s: %w", shown(where), err)
	}
	return token, nil
}

// basic is what the credentials are in a request; empty if there are none. Whoever listens must be who it says.
func (f *fetcher) basic() (string, error) {
	switch {
	case f.credentials.none():
		return "", nil
	case !f.checks:
		return "", fmt.Errorf("%w: it is not told %s: %s", errDenied, f.credentials, unchecked)
	}
	return f.credentials.basic(), nil
}

// admitted asks a server that knows by authorization who asks. It fails with errDenied if that does not let the node in.
func (f *fetcher) admitted(ctx context.Context, location, authorization string) (*http.Response, error) {
	response, err := f.ask(ctx, location, authorization)
	if err != nil {
		return nil, err
	}
	if response.StatusCode == http.StatusUnauthorized || response.StatusCode == http.StatusForbidden {
		response.Body.Close()
		return nil, f.denied()
	}
	return response, nil
}

// denied says what is to be done for the registry to let the node in.
func (f *fetcher) denied() error {
	if f.credentials.none() {
		return fmt.Errorf("%w: it wants credentials, and there are no %s", errDenied, f.credentials)
	}
	return fmt.Errorf("%w: it refuses %s: they are wrong, or may not read this repository", errDenied, f.credentials)
}

// readToken reads the answer of a server of tokens. What it fails with quotes nothing.
func readToken(r io.Reader) (string, error) {
	answer, err := io.ReadAll(io.LimitReader(r, maxToken+1))
	if err != nil {
		return "", err
	}
	if len(answer) > maxToken {
		return "", fmt.Errorf("its answer has more than %d bytes", maxToken)
	}
	var is struct {
		Token string `json:"token"`
		Same  string `json:"access_token"` // in the words of OAuth 2.0
	}
	if json.Unmarshal(answer, &is) != nil {
		return "", errors.New("its answer is no JSON with a token")
	}
	if is.Token == "" {
		is.Token = is.Same
	}
	if is.Token == "" {
		return "", errors.New("no token in its answer")
	}
	return is.Token, nil
}

// tokenURL is where a challenge, "Bearer realm=…,service=…,scope=…" (RFC 6750), has the token fetched.
func tokenURL(bearer challenge) (string, error) {
	realm := bearer.parameters["realm"]
	where, err := url.Parse(realm)
	if err != nil || where.Scheme != "https" || where.Host == "" {
		return "", fmt.Errorf("it has tokens fetched from %q: want an https URL", realm)
	}
	query := where.Query()
	for _, key := range []string{"service", "scope"} {
		if value, ok := bearer.parameters[key]; ok {
			query[key] = append([]string{value}, query[key]...)
		}
	}
	where.RawQuery = query.Encode()
	return where.String(), nil
}
