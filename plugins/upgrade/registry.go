package upgrade

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"
)

// maxToken is the size of the longest answer of a server of tokens, in bytes.
const maxToken = 64 << 10

// fetch asks for what is at a location. At "oci://HOST/REPOSITORY" that is a blob of a registry, found by its digest as the OCI Distribution
// Specification 1.1 says, whatever manifest names it. A registry that wants a token is asked for the one that it has for everybody.
func fetch(ctx context.Context, client *http.Client, location, digest string) (*http.Response, error) {
	rest, isRegistry := strings.CutPrefix(location, "oci://")
	if !isRegistry {
		return get(ctx, client, location, "")
	}
	host, repository, _ := strings.Cut(rest, "/")
	blob := (&url.URL{Scheme: "https", Host: host, Path: "/v2/" + repository + "/blobs/sha256:" + digest}).String()
	response, err := get(ctx, client, blob, "")
	if err != nil || response.StatusCode != http.StatusUnauthorized {
		return response, err
	}
	response.Body.Close()
	token, err := askForToken(ctx, client, response.Header.Get("WWW-Authenticate"))
	if err != nil {
		return nil, fmt.Errorf("%s: %s: %w", location, response.Status, err)
	}
	return get(ctx, client, blob, token)
}

func get(ctx context.Context, client *http.Client, location, token string) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, location, nil)
	if err != nil {
		return nil, err
	}
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	return client.Do(request)
}

// askForToken answers a registry's challenge without saying who asks.
func askForToken(ctx context.Context, client *http.Client, challenge string) (string, error) {
	where, err := tokenURL(challenge)
	if err != nil {
		return "", err
	}
	response, err := get(ctx, client, where, "")
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return "", fmt.Errorf("%s: %s", where, response.Status)
	}
	var answer struct {
		Token string `json:"token"`
		Same  string `json:"access_token"` // in the words of OAuth 2.0
	}
	if err := json.NewDecoder(io.LimitReader(response.Body, maxToken)).Decode(&answer); err != nil {
		return "", fmt.Errorf("%s: %w", where, err)
	}
	if answer.Token == "" {
		answer.Token = answer.Same
	}
	if answer.Token == "" {
		return "", fmt.Errorf("%s: no token in its answer", where)
	}
	return answer.Token, nil
}

var challengeParameter = regexp.MustCompile(`(\w+)="([^"]*)"`)

// tokenURL is where a challenge, "Bearer realm=…,service=…,scope=…" (RFC 6750), has the token fetched.
func tokenURL(challenge string) (string, error) {
	scheme, parameters, _ := strings.Cut(challenge, " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return "", errors.New("it wants more than a token that everybody is given")
	}
	query := url.Values{}
	var realm string
	for _, m := range challengeParameter.FindAllStringSubmatch(parameters, -1) {
		switch m[1] {
		case "realm":
			realm = m[2]
		case "service", "scope":
			query.Set(m[1], m[2])
		}
	}
	where, err := url.Parse(realm)
	if err != nil || where.Scheme != "https" || where.Host == "" {
		return "", fmt.Errorf("it has tokens fetched from %q: want an https URL", realm)
	}
	for key, values := range where.Query() {
		query[key] = append(query[key], values...)
	}
	where.RawQuery = query.Encode()
	return where.String(), nil
}
