package upgrade

import (
	"crypto/ed25519"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	machinepb "github.com/cosi-os/cosi/api/cosi/machine/v1alpha1"
)

// A password that is searched for in whatever is said.
const canary = "xyzzy:the canary"

// ask has the registry want credentials by a scheme, and returns the right ones. The server's certificate is its own CA's.
func (g *guarded) ask(scheme string) credentials {
	g.scheme = scheme
	right := credentials{username: "node", password: canary, ca: g.ca()}
	g.knows = right.basic()
	return right
}

func (g *guarded) ca() string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: g.server.Certificate().Raw}))
}

// quiet fails the test if a text has the password in it, as it is or as HTTP has it.
func quiet(t *testing.T, text string) {
	t.Helper()
	basic := credentials{username: "node", password: canary}.basic()
	for _, secret := range []string{"xyzzy", "canary", strings.TrimPrefix(basic, "Basic "), base64.StdEncoding.EncodeToString([]byte(canary))} {
		if strings.Contains(text, secret) {
			t.Errorf("the password is in %q", text)
		}
	}
}

func TestAPrivateRegistry(t *testing.T) {
	another := anotherCA(t)
	none := func(c *credentials) { *c = credentials{} }
	for name, tc := range map[string]struct {
		change func(*credentials)
		image  string // the certificates in it; empty: it has none
		want   string // the error; empty: it is read
		told   bool   // the registry hears credentials
	}{
		"right":                    {func(*credentials) {}, "", "", true},
		"right, the image's CA":    {func(c *credentials) { c.ca = "" }, "the server's", "", true},
		"right, both, and their's": {func(*credentials) {}, "another", "", true},
		"none":                     {none, "", `not let in: it wants credentials, and there are no RegistryCredentials "HOST"`, false},
		"wrong password":           {func(c *credentials) { c.password += "!" }, "", `not let in: it refuses RegistryCredentials "HOST": they are wrong`, true},
		"wrong name":               {func(c *credentials) { c.username = "nobody" }, "", `not let in: it refuses RegistryCredentials "HOST"`, true},
		"nobody checks the server": {func(c *credentials) { c.ca = "" }, "", `not let in: it is not told RegistryCredentials "HOST": the registry's certificate cannot be checked: they have no ca`, false},
		"another CA":               {func(c *credentials) { c.ca = another }, "", "certificate signed by unknown authority", false},
		"the image has another CA": {func(c *credentials) { c.ca = "" }, "another", "certificate signed by unknown authority", false},
		"the ca is none":           {func(c *credentials) { c.ca = "-----BEGIN CERTIFICATE-----" }, "", `RegistryCredentials "HOST": ca: no PEM certificate`, false},
	} {
		for _, scheme := range []string{"Basic", "Bearer"} {
			t.Run(name+", "+scheme, func(t *testing.T) {
				g := newRegistry(t, []byte("an upgrade"))
				c := g.ask(scheme)
				tc.change(&c)
				image := filepath.Join(t.TempDir(), "ca.pem")
				if tc.image != "" {
					if err := os.WriteFile(image, []byte(map[string]string{"the server's": g.ca(), "another": another}[tc.image]), 0o600); err != nil {
						t.Fatal(err)
					}
				}
				got, err := g.fetch(t, image, c, "an upgrade")
				want := strings.ReplaceAll(tc.want, "HOST", g.host())
				switch {
				case want == "" && (err != nil || got != "an upgrade"):
					t.Errorf("%q, %v", got, err)
				case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
					t.Errorf("%v; want %q", err, want)
				case err != nil:
					quiet(t, err.Error())
				}
				if told := len(g.heard()) > 0; told != tc.told {
					t.Errorf("the registry hears %q", g.heard())
				}
				for _, heard := range g.heard() {
					if basic := strings.Contains(heard, " Basic "); scheme == "Bearer" && basic != strings.HasPrefix(heard, "/token ") {
						t.Errorf("the registry hears %q", heard)
					}
				}
			})
		}
	}
}

func TestRegistryOf(t *testing.T) {
	for location, want := range map[string]string{
		"oci://Registry.Example:5000/a/b": "registry.example:5000", "oci://registry.example/a": "registry.example", "https://registry.example/a": "", "": "",
	} {
		if got := registryOf(location); got != want {
			t.Errorf("%s: %q; want %q", location, got, want)
		}
	}
}

func TestSameServer(t *testing.T) {
	for other, want := range map[string]bool{
		"https://Registry.example/x": true, "https://registry.example:443": true, "https://registry.example:80": false, "http://registry.example": false,
		"http://registry.example:443": false, "https://registry.example:5000": false, "https://blobs.registry.example": false, "https://example": false,
	} {
		a, b := &url.URL{Scheme: "https", Host: "registry.example"}, &url.URL{}
		if err := b.UnmarshalBinary([]byte(other)); err != nil || sameServer(a, b) != want {
			t.Errorf("%s: %v, %v; want %v", other, sameServer(a, b), err, want)
		}
	}
}

func TestARegistryForEverybodyIsToldNothing(t *testing.T) {
	g := newRegistry(t, []byte("an upgrade"))
	c := g.ask("")
	if got, err := g.fetch(t, "", c, "an upgrade"); err != nil || got != "an upgrade" || len(g.heard()) > 0 {
		t.Errorf("%q, %v; the registry hears %q", got, err, g.heard())
	}
}

// elsewhere is another server of the same host, with the same certificate: net/http alone would show it what is said to the first.
func elsewhere(t *testing.T, start func(http.Handler) *httptest.Server, answer http.HandlerFunc) (url string, asked, told *atomic.Int32) {
	t.Helper()
	asked, told = &atomic.Int32{}, &atomic.Int32{}
	server := start(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		if r.Header.Get("Authorization") != "" || r.Header.Get("Cookie") != "" {
			told.Add(1)
		}
		answer(w, r)
	}))
	t.Cleanup(server.Close)
	return server.URL, asked, told
}

func TestCredentialsStayWithTheirRegistry(t *testing.T) {
	blob := func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("an upgrade")) }
	for _, scheme := range []string{"Basic", "Bearer"} {
		for name, start := range map[string]func(http.Handler) *httptest.Server{"https": httptest.NewTLSServer, "http": httptest.NewServer} {
			t.Run("a store of blobs, "+scheme+", "+name, func(t *testing.T) {
				g := newRegistry(t, []byte("an upgrade"))
				c := g.ask(scheme)
				var asked, told *atomic.Int32
				g.blobs, asked, told = elsewhere(t, start, blob)
				if got, err := g.fetch(t, "", c, "an upgrade"); err != nil || got != "an upgrade" {
					t.Errorf("%q, %v", got, err)
				}
				if asked.Load() != 1 || told.Load() != 0 {
					t.Errorf("the store is asked %d times, and %d times told who asks", asked.Load(), told.Load())
				}
			})
		}
		t.Run("a store that wants credentials, "+scheme, func(t *testing.T) {
			g := newRegistry(t, []byte("an upgrade"))
			c := g.ask("")
			var asked, told *atomic.Int32
			g.blobs, asked, told = elsewhere(t, httptest.NewTLSServer, func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("WWW-Authenticate", scheme+` realm="https://`+r.Host+`/token"`)
				w.WriteHeader(http.StatusUnauthorized)
			})
			want := "it sends the node on to " + strings.TrimPrefix(g.blobs, "https://") + ", and that says 401 Unauthorized"
			if _, err := g.fetch(t, "", c, "an upgrade"); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%v; want %q", err, want)
			}
			if asked.Load() != 1 || told.Load() != 0 || len(g.heard()) > 0 {
				t.Errorf("the store is asked %d times, and %d times told who asks; the registry hears %q", asked.Load(), told.Load(), g.heard())
			}
		})
	}
	t.Run("in a circle", func(t *testing.T) {
		g := newRegistry(t, []byte("an upgrade"))
		c := g.ask("Basic")
		g.blobs = g.server.URL
		if _, err := g.fetch(t, "", c, "an upgrade"); err == nil || !strings.HasSuffix(err.Error(), "more than 10 redirects") {
			t.Errorf("%v; want that there are too many redirects", err)
		}
		if heard := g.heard(); len(heard) != maxRedirects {
			t.Errorf("it hears %d times who asks; want %d", len(heard), maxRedirects)
		}
	})
	t.Run("a server of tokens that sends the node on", func(t *testing.T) {
		g := newRegistry(t, []byte("an upgrade"))
		c := g.ask("Bearer")
		var asked, told *atomic.Int32
		g.tokens, asked, told = elsewhere(t, httptest.NewTLSServer, func(w http.ResponseWriter, _ *http.Request) {
			w.Write([]byte(`{"token": "of repository:cosi/base:pull"}`))
		})
		if got, err := g.fetch(t, "", c, "an upgrade"); err != nil || got != "an upgrade" || asked.Load() != 1 || told.Load() != 0 {
			t.Errorf("%q, %v; it is asked %d times, and %d times told who asks", got, err, asked.Load(), told.Load())
		}
	})
}

// A store of blobs lets in who has the URL, and no status may have that.
func TestWhereARegistrySendsTheNodeOnIsNotSaid(t *testing.T) {
	g := newRegistry(t, []byte("an upgrade"))
	gone := httptest.NewServer(nil)
	gone.Close()
	g.scheme, g.blobs = "", gone.URL+"/?signature=xyzzy#"
	_, err := g.fetch(t, "", credentials{}, "an upgrade")
	if err == nil || !strings.Contains(err.Error(), gone.URL) {
		t.Fatalf("%v; want %s", err, gone.URL)
	}
	quiet(t, err.Error())
}

// The Upgrade goes on when there are credentials, and when there are others, not when the time has come for a source that failed; meanwhile a registry
// that has refused them is not told them again.
func TestAnUpgradeFromAPrivateRegistry(t *testing.T) {
	n, a, _ := newNode(t)
	n.ready(true)
	b := newImage(t, "2.0.0")
	file, digest := b.file(t, nil)
	g := newRegistry(t, file)
	right := g.ask("Basic")
	write := func(password string) {
		n.Apply(g.host(), &machinepb.RegistryCredentials{Username: right.username, Password: password, Ca: right.ca})
	}
	says := func(want string) {
		t.Helper()
		is := &machinepb.UpgradeStatus{}
		n.Wait(want, func() bool { return n.Get("u", is) != nil && strings.Contains(is.GetMessage(), want) })
		quiet(t, is.String())
		if is.GetReason() != reasonReceiving || !strings.HasSuffix(is.GetMessage(), `; tried again in 10m0s, or when RegistryCredentials "`+g.host()+`" are written`) {
			t.Errorf("status: %v", is)
		}
	}
	n.boot()
	write(canary) // and on their way out, they count no more
	status := &machinepb.RegistryCredentialsStatus{}
	n.Wait("they are in force", func() bool { return n.Get(g.host(), status) != nil && status.GetReady() })
	n.Teardown(g.host(), &machinepb.RegistryCredentials{})
	n.Wait("they are not", func() bool { return n.Get(g.host(), status) == nil })
	n.Apply("u", &machinepb.Upgrade{Url: "oci://" + g.host() + "/cosi/base", Digest: digest, NoReboot: true})
	says(`it wants credentials, and there are no RegistryCredentials "` + g.host() + `"`)
	n.Delete(g.host(), &machinepb.RegistryCredentials{})
	write("wrong " + canary)
	says(`it refuses RegistryCredentials "` + g.host() + `"`)
	for i := range 3 { // each has the plugin look at everything again
		n.Apply("nobody's", &machinepb.RegistryCredentials{Username: "nobody", Password: strings.Repeat("x", i+1)})
		time.Sleep(20 * time.Millisecond)
	}
	if heard := g.heard(); len(heard) != 1 {
		t.Errorf("the registry hears %q", heard)
	}
	write(canary)
	if is := n.waits("u", reasonStaged); is.GetVersion() != "2.0.0" {
		t.Errorf("status: %v", is)
	}
	if e := n.disk.boots(t, a, b); e.Root != b.root {
		t.Errorf("%s is booted next", e.Version)
	}
}

func TestCredentialsSayWhetherTheyAreInForce(t *testing.T) {
	n, _, _ := newNode(t)
	n.ready(true)
	n.boot()
	ca := anotherCA(t)
	const invalid = "the id is not the host of oci://HOST/REPOSITORY"
	is := &machinepb.RegistryCredentialsStatus{}
	for id, tc := range map[string]struct{ ca, reason, message string }{
		"registry.example":      {ca, "InForce", ""},
		"registry.example:5000": {ca, "InForce", ""},
		"[::1]:5000":            {ca, "InForce", ""},
		"Registry.example":      {ca, "Invalid", invalid},
		"registry.example/cosi": {ca, "Invalid", invalid},
		"oci://r.example":       {ca, "Invalid", invalid},
		"xyzzy:xyzzy@r.example": {ca, "Invalid", invalid},
		"r.example":             {"-----BEGIN CERTIFICATE-----", "Invalid", `RegistryCredentials "r.example": ca: no PEM certificate in it`},
		"s.example":             {"", "Unchecked", "they have no ca"},
	} {
		version := n.Apply(id, &machinepb.RegistryCredentials{Username: "node", Password: canary, Ca: tc.ca}).GetMetadata().GetVersion()
		n.Wait(id+" has a status", func() bool { return n.Get(id, is) != nil })
		quiet(t, is.String())
		if is.GetReason() != tc.reason || is.GetReady() != (tc.reason == "InForce") || !strings.Contains(is.GetMessage(), tc.message) || is.GetObservedVersion() != version {
			t.Errorf("%s: %v", id, is)
		}
		n.Delete(id, &machinepb.RegistryCredentials{})
		n.Wait(id+" has none any more", func() bool { return n.Get(id, is) == nil })
	}
	image := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(image, []byte(ca), 0o600); err != nil {
		t.Fatal(err)
	}
	if reason, message := (credentials{host: "s.example", username: "node"}).judge(image); reason != "InForce" || message != "" {
		t.Errorf("with certificates in the image: %s %s", reason, message)
	}
}

// What is written while the registry is asked is not left until the time has come.
func TestCredentialsThatComeMeanwhile(t *testing.T) {
	n, _, _ := newNode(t)
	n.ready(true)
	file, digest := newImage(t, "2.0.0").file(t, nil)
	g := newRegistry(t, file)
	right := g.ask("Basic")
	var once sync.Once
	g.asked = func() {
		once.Do(func() {
			n.Apply(g.host(), &machinepb.RegistryCredentials{Username: right.username, Password: right.password, Ca: right.ca})
			time.Sleep(100 * time.Millisecond) // the plugin sees them
		})
	}
	n.boot()
	n.Apply("u", &machinepb.Upgrade{Url: "oci://" + g.host() + "/cosi/base", Digest: digest, NoReboot: true})
	n.waits("u", reasonStaged)
}

func TestAnInstallationFromAPrivateRegistry(t *testing.T) {
	i, file, digest, raw := oneImage(t)
	g := newRegistry(t, file)
	right := g.ask("Bearer")
	var told *atomic.Int32
	g.blobs, _, told = elsewhere(t, httptest.NewTLSServer, func(w http.ResponseWriter, _ *http.Request) { w.Write(file) })
	d := emptyDisk()
	n := memoryNode(t, d)
	n.run(nil, errNoSlot)
	n.Apply("here", &machinepb.Installation{
		Disk: &machinepb.Installation_Selector{Name: "vda"}, Url: "oci://" + g.host() + "/cosi/base", Digest: digest, NoReboot: true,
	})
	n.reads("here", reasonWaiting, `it wants credentials, and there are no RegistryCredentials "`+g.host()+`"; tried again in 10m0s`)
	n.Apply(g.host(), &machinepb.RegistryCredentials{Username: right.username, Password: right.password, Ca: right.ca})
	n.reads("here", reasonInstalled, "")
	asMade(t, d.Data, raw, i)
	if told.Load() != 0 {
		t.Error("the store of blobs is told who asks")
	}
}

// The url of an Installation, which is Sensitive, may have a password in it, too.
func TestAPasswordInAURLIsNotSaid(t *testing.T) {
	server := httptest.NewServer(http.NotFoundHandler())
	n := memoryNode(t, emptyDisk())
	n.run(nil, errNoSlot)
	wanted := &machinepb.Installation{Disk: &machinepb.Installation_Selector{Name: "vda"}, Digest: strings.Repeat("0", 64)}
	wanted.Url = strings.Replace(server.URL, "http://", "http://node:xyzzy@", 1) + "/file?key=xyzzy"
	n.Apply("here", wanted)
	quiet(t, n.reads("here", reasonWaiting, server.URL+"/file: 404 Not Found").String())
	server.Close()
	wanted.NoReboot = true
	n.Apply("here", wanted) // and is tried at once
	quiet(t, n.reads("here", reasonWaiting, server.URL+`/file": dial`).String())
	wanted.Url = strings.Replace(wanted.Url, "/file", "xyzzy/file", 1)
	n.Apply("here", wanted)
	quiet(t, n.reads("here", reasonWaiting, "url: cannot be read as one").String())
}

// anotherCA returns the certificate of an authority that has signed nothing.
func anotherCA(t *testing.T) string {
	t.Helper()
	public, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(nil, template, template, public, key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}
