package upgrade

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"

	machinepb "github.com/cosi-os/cosi/api/cosi/machine/v1alpha1"
)

// guarded is a registry that lets nobody read without a token, which everybody is given who says what it is for.
type guarded struct {
	http.Handler
	server *httptest.Server
	answer func(scope string) any // of the server of tokens
	open   bool                   // nobody is asked
}

func (g *guarded) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.URL.Path == "/token":
		if q := r.URL.Query(); r.Header.Get("Authorization") != "" || q.Get("service") != "tests" || q.Get("more") != "1" {
			http.Error(w, "not asked so", http.StatusBadRequest)
			return
		}
		json.NewEncoder(w).Encode(g.answer(r.URL.Query().Get("scope")))
	case !g.open && r.Header.Get("Authorization") != "Bearer of repository:cosi/base:pull":
		w.Header().Set("WWW-Authenticate", `Bearer realm="`+g.server.URL+`/token?more=1",service="tests",scope="repository:cosi/base:pull"`)
		w.WriteHeader(http.StatusUnauthorized)
	default:
		g.Handler.ServeHTTP(w, r)
	}
}

// newRegistry returns a registry that holds content as a layer of cosi/base.
func newRegistry(t *testing.T, content []byte) *guarded {
	t.Helper()
	g := &guarded{Handler: registry.New(registry.Logger(log.New(io.Discard, "", 0))), open: true}
	server := httptest.NewTLSServer(g)
	t.Cleanup(server.Close)
	g.server = server
	repository, err := name.NewRepository(strings.TrimPrefix(server.URL, "https://") + "/cosi/base")
	if err != nil {
		t.Fatal(err)
	}
	var layer v1.Layer = static.NewLayer(content, types.MediaType("application/vnd.cosi.image.upgrade.v1"))
	if err := remote.WriteLayer(repository, layer, remote.WithTransport(server.Client().Transport)); err != nil {
		t.Fatal(err)
	}
	g.open = false
	return g
}

func TestUpgradeFromARegistry(t *testing.T) {
	n, a, _ := newNode(t)
	n.ready(true)
	b := newImage(t, "2.0.0")
	file, digest := b.file(t, nil)
	g := newRegistry(t, file)
	g.answer = func(scope string) any { return map[string]string{"token": "of " + scope} }
	n.boot()
	location := "oci://" + strings.TrimPrefix(g.server.URL, "https://")
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
		"none":         {map[string]string{}, "no token in its answer"},
		"no object":    {"token", "cannot unmarshal"},
		"too long":     {map[string]string{"token": strings.Repeat("x", maxToken)}, "unexpected EOF"},
	} {
		t.Run(name, func(t *testing.T) {
			g := newRegistry(t, []byte("an upgrade"))
			g.answer = func(string) any { return tc.answer }
			client := g.server.Client()
			response, err := fetch(t.Context(), client, "oci://"+strings.TrimPrefix(g.server.URL, "https://")+"/cosi/base", fmt.Sprintf("%x", sha256.Sum256([]byte("an upgrade"))))
			if tc.want != "" {
				if err == nil || !strings.Contains(err.Error(), tc.want) || !strings.Contains(err.Error(), "401 Unauthorized") {
					t.Fatalf("%v; want %q", err, tc.want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer response.Body.Close()
			if got, err := io.ReadAll(response.Body); err != nil || string(got) != "an upgrade" {
				t.Errorf("%q, %v", got, err)
			}
		})
	}
}

func TestTokenURL(t *testing.T) {
	for challenge, want := range map[string]string{
		`Bearer realm="https://auth.example/token",service="registry.example",scope="repository:a/b:pull"`: "https://auth.example/token?scope=repository%3Aa%2Fb%3Apull&service=registry.example",
		`bearer realm="https://auth.example/token?x=1", error="invalid_token"`:                             "https://auth.example/token?x=1",
		`Basic realm="registry.example"`:    "it wants more than a token that everybody is given",
		``:                                  "it wants more than a token that everybody is given",
		`Bearer service="registry.example"`: `it has tokens fetched from "": want an https URL`,
		`Bearer realm="http://auth.example/token"`:    `it has tokens fetched from "http://auth.example/token": want an https URL`,
		`Bearer realm="file:///etc/passwd",service=x`: `it has tokens fetched from "file:///etc/passwd": want an https URL`,
	} {
		got, err := tokenURL(challenge)
		if err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%s: %s; want %s", challenge, got, want)
		}
	}
}

// Whatever a registry says, a token is fetched by https or not at all.
func FuzzTokenURL(f *testing.F) {
	f.Add(`Bearer realm="https://auth.example/token?a=b",service="registry.example",scope="repository:a/b:pull"`)
	f.Fuzz(func(t *testing.T, challenge string) {
		where, err := tokenURL(challenge)
		if err != nil {
			return
		}
		if u, err := url.Parse(where); err != nil || u.Scheme != "https" || u.Host == "" {
			t.Errorf("%q: %q (%v)", challenge, where, err)
		}
	})
}
