package upgrade

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"

	machinepb "github.com/cosi-os/cosi/api/cosi/machine/v1alpha1"
)

// guarded is a registry that lets nobody read who does not say by the scheme that it wants who asks.
type guarded struct {
	http.Handler
	server *httptest.Server
	scheme string                 // Basic or Bearer; empty: nobody is asked
	answer func(scope string) any // of its server of tokens
	knows  string                 // what that, or the registry itself, takes in an Authorization; empty: tokens are for everybody
	blobs  string                 // where it sends those who may read
	tokens string                 // where its server of tokens sends them
	asked  func()                 // called before it answers, if there is one

	mu   sync.Mutex // guards the field below
	told []string   // the Authorizations that have arrived, with the paths
}

// newRegistry returns a registry that holds content as a layer of cosi/base.
func newRegistry(t *testing.T, content []byte) *guarded {
	t.Helper()
	g := &guarded{Handler: registry.New(registry.Logger(log.New(io.Discard, "", 0)))}
	g.answer = func(scope string) any { return map[string]string{"token": "of " + scope} }
	g.server = httptest.NewTLSServer(g)
	t.Cleanup(g.server.Close)
	repository, err := name.NewRepository(g.host() + "/cosi/base")
	if err != nil {
		t.Fatal(err)
	}
	var layer v1.Layer = static.NewLayer(content, types.MediaType("application/vnd.cosi.image.upgrade.v1"))
	if err := remote.WriteLayer(repository, layer, remote.WithTransport(g.server.Client().Transport)); err != nil {
		t.Fatal(err)
	}
	g.scheme = "Bearer"
	return g
}

func (g *guarded) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if g.asked != nil {
		g.asked()
	}
	says, wants := r.Header.Get("Authorization"), g.knows
	if says != "" {
		g.mu.Lock()
		g.told = append(g.told, r.URL.Path+" "+says)
		g.mu.Unlock()
	}
	if g.scheme == "Bearer" {
		wants = "Bearer of repository:cosi/base:pull"
	}
	q := r.URL.Query()
	switch {
	case r.URL.Path == "/token" && (q.Get("service") != "tests" || q.Get("more") != "1"):
		http.Error(w, "not asked so", http.StatusBadRequest)
	case r.URL.Path == "/token" && says != g.knows:
		http.Error(w, "not who it knows", http.StatusForbidden)
	case r.URL.Path == "/token" && g.tokens != "":
		http.Redirect(w, r, g.tokens, http.StatusTemporaryRedirect)
	case r.URL.Path == "/token":
		json.NewEncoder(w).Encode(g.answer(q.Get("scope")))
	case g.scheme == "Bearer" && says != wants:
		w.Header().Set("WWW-Authenticate", `Bearer realm="`+g.server.URL+`/token?more=1",service="tests",scope="repository:cosi/base:pull"`)
		w.WriteHeader(http.StatusUnauthorized)
	case g.scheme != "" && says != wants:
		w.Header().Set("WWW-Authenticate", g.scheme+` realm="tests"`)
		w.WriteHeader(http.StatusUnauthorized)
	case g.blobs != "" && strings.HasPrefix(r.URL.Path, "/v2/cosi/base/blobs/"):
		http.Redirect(w, r, g.blobs+r.URL.Path, http.StatusTemporaryRedirect)
	default:
		g.Handler.ServeHTTP(w, r)
	}
}

func (g *guarded) host() string { return strings.TrimPrefix(g.server.URL, "https://") }

// heard is what was said to it of who asks.
func (g *guarded) heard() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Clone(g.told)
}

// fetch fetches a blob of cosi/base, by certificates of the image if there are some, and returns it.
func (g *guarded) fetch(t *testing.T, image string, c credentials, content string) (string, error) {
	t.Helper()
	c.host = g.host()
	f, err := newFetcher(image, c)
	if err != nil {
		return "", err
	}
	defer f.close()
	response, err := f.fetch(t.Context(), "oci://"+g.host()+"/cosi/base", fmt.Sprintf("%x", sha256.Sum256([]byte(content))))
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return "", errors.New(response.Status)
	}
	got, err := io.ReadAll(response.Body)
	return string(got), err
}

func TestUpgradeFromARegistry(t *testing.T) {
	n, a, _ := newNode(t)
	n.ready(true)
	b := newImage(t, "2.0.0")
	file, digest := b.file(t, nil)
	g := newRegistry(t, file)
	n.boot()
	location := "oci://" + g.host()
	n.Apply("gone", &machinepb.Upgrade{Url: location + "/cosi/base", Digest: strings.Repeat("0", 64)})
	is := &machinepb.UpgradeStatus{}
	n.Wait("a blob that is not there", func() bool {
		return n.Get("gone", is) != nil && strings.Contains(is.GetMessage(), "404 Not Found; tried again in 10s")
	})
	n.Delete("gone", &machinepb.Upgrade{})
	n.Wait("its status is gone", func() bool { return n.Get("gone", is) == nil })
	n.Apply("there", &machinepb.Upgrade{Url: location + "/cosi/base", Digest: digest, NoReboot: true})
	if is := n.waits("there", reasonStaged); is.GetVersion() != "2.0.0" {
		t.Errorf("status: %v", is)
	}
	if e := n.disk.boots(t, a, b); e.Root != b.root {
		t.Errorf("%s is booted next", e.Version)
	}
}

func TestTokensOfARegistry(t *testing.T) {
	for name, tc := range map[string]struct {
		answer any
		want   string // the error; empty: it is read
	}{
		"token":        {map[string]string{"token": "of repository:cosi/base:pull"}, ""},
		"access_token": {map[string]string{"access_token": "of repository:cosi/base:pull"}, ""},
		"another":      {map[string]string{"token": "of repository:cosi/other:pull"}, "it wants credentials, and there are no RegistryCredentials"},
		"none":         {map[string]string{}, "no token in its answer"},
		"no object":    {"token", "its answer is no JSON with a token"},
		"a number":     {map[string]int{"token": 4711}, "its answer is no JSON with a token"},
		"too long":     {map[string]string{"token": strings.Repeat("x", maxToken)}, "its answer has more than 65536 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			g := newRegistry(t, []byte("an upgrade"))
			g.answer = func(string) any { return tc.answer }
			got, err := g.fetch(t, "", credentials{}, "an upgrade")
			switch {
			case tc.want == "" && (err != nil || got != "an upgrade"):
				t.Errorf("%q, %v", got, err)
			case tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want) || !strings.Contains(err.Error(), "401 Unauthorized") || strings.Contains(err.Error(), "4711")):
				t.Errorf("%v; want %q", err, tc.want)
			}
		})
	}
}
