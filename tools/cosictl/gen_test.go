package main

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cosi-os/cosi/tools/client"
	"github.com/cosi-os/cosi/tools/pki"
)

// front terminates TLS before a runtime's socket, as a node does, with the pair called name of a person's store.
func front(t *testing.T, p *person, name, socket string) (address string) {
	t.Helper()
	store := pki.Store{Dir: filepath.Join(p.home, "pki")}
	serving, err := tls.LoadX509KeyPair(store.CertFile(name), store.KeyFile(name))
	if err != nil {
		t.Fatal(err)
	}
	ca, err := os.ReadFile(store.CertFile(pki.CAName))
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{"h2"}, Certificates: []tls.Certificate{serving}, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go pipe(conn, socket)
		}
	}()
	return listener.Addr().String()
}

func pipe(conn net.Conn, socket string) {
	defer conn.Close()
	if conn.(*tls.Conn).Handshake() != nil {
		return
	}
	inner, err := net.Dial("unix", socket)
	if err != nil {
		return
	}
	defer inner.Close()
	go func() { _, _ = io.Copy(inner, conn); inner.Close() }()
	_, _ = io.Copy(conn, inner)
}

func TestFromNothingToANodeOverTheNetwork(t *testing.T) {
	socket := startRuntime(t)
	p := newPerson(t, "")
	dir := filepath.Join(p.home, "pki")
	p.want(exitError, "gen", "client", "me", "--dir", dir) // no CA yet
	p.want(exitOK, "gen", "ca", "--dir", dir)
	p.want(exitOK, "gen", "client", "me", "--role", "reader", "--dir", dir)
	p.want(exitOK, "gen", "node", "lab1", "--dir", dir)
	p.want(exitError, "gen", "ca", "--dir", dir) // would make the others worthless
	address := front(t, p, "node-lab1", socket)

	p.want(exitOK, "context", "add", "lab1", "--endpoint", address, "--client", "me", "--dir", dir)
	p.want(exitOK, "context", "add", "other", "--endpoint", address, "--client", "me", "--dir", dir)
	p.want(exitOK, "get", "mounts")
	if text := p.want(exitError, "get", "mounts", "--context", "other"); !strings.Contains(text, "valid for lab1, not other") {
		t.Errorf("said %q", text)
	}
	p.want(exitOK, "context", "use", "other")
	p.want(exitError, "get", "mounts")
	p.want(exitOK, "context", "use", "lab1")
	listed := dates.ReplaceAllString(p.want(exitOK, "context", "list"), "DATE")
	golden(t, "context-list", columns.ReplaceAllString(strings.ReplaceAll(listed, address, "ADDRESS"), "  "))

	if info, err := os.Stat(filepath.Join(p.home, "config.yaml")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("configuration: %v, %v", info, err)
	}
	p.want(exitOK, "context", "remove", "lab1")
	if text := p.want(exitError, "get", "mounts"); !strings.Contains(text, "no context is chosen: add one") {
		t.Errorf("said %q", text)
	}
}

func TestTrustPinsTheCertificateThatWasRead(t *testing.T) {
	socket := startRuntime(t)
	p := newPerson(t, "")
	dir := filepath.Join(p.home, "pki")
	p.want(exitOK, "gen", "ca", "--dir", dir)
	p.want(exitOK, "gen", "client", "me", "--dir", dir)
	p.want(exitOK, "gen", "node", "own", "--dir", dir)
	p.want(exitOK, "gen", "node", "another", "--dir", dir)
	address, elsewhere := front(t, p, "node-own", socket), front(t, p, "node-another", socket)
	pair, err := pki.Store{Dir: dir}.Load("node-own")
	if err != nil {
		t.Fatal(err)
	}
	fingerprint := pki.Fingerprint(pair.Certificate)

	p.want(exitUsage, "trust", address, "--fingerprint", "abc")
	p.want(exitUsage, "trust", address)
	p.want(exitUsage, "trust", address, "--fingerprint", fingerprint) // no client
	if text := p.want(exitError, "trust", elsewhere, "--fingerprint", fingerprint, "--client", "me", "--dir", dir); !strings.Contains(text, "nothing is trusted") {
		t.Errorf("said %q", text)
	}
	if _, err := os.Stat(filepath.Join(p.home, "config.yaml")); err == nil {
		t.Error("a refused trust left a configuration")
	}
	p.want(exitOK, "trust", address, "--fingerprint", strings.ToUpper(fingerprint), "--client", "me", "--as", "lab", "--dir", dir)
	p.want(exitOK, "get", "mounts")
	if text := p.want(exitError, "--endpoint", elsewhere, "get", "mounts"); !strings.Contains(text, "not the trusted "+fingerprint) {
		t.Errorf("said %q", text)
	}
}

func TestRenewReachesTheContexts(t *testing.T) {
	p := newPerson(t, "")
	p.now = time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	dir := filepath.Join(p.home, "pki")
	said := p.want(exitOK, "gen", "ca", "--dir", dir)
	said += p.want(exitOK, "gen", "client", "me", "--dir", dir)
	p.want(exitOK, "context", "add", "lab1", "--endpoint", "192.0.2.1", "--client", "me", "--dir", dir)
	before := p.certificate("lab1")
	p.now = p.now.AddDate(0, 6, 0)
	said += p.want(exitOK, "gen", "renew", "--dir", dir)
	p.now = p.now.AddDate(3, 0, 0)
	said += p.want(exitOK, "gen", "renew", "client-me", "--dir", dir)
	p.now = p.now.AddDate(20, 0, 0)
	said += p.want(exitError, "gen", "renew", "client-me", "--dir", dir)
	said += p.want(exitOK, "gen", "renew", "--dir", dir)
	golden(t, "renew", p.timeless(said))
	if after := p.certificate("lab1"); after.NotAfter.Before(p.now) || after.NotAfter.Equal(before.NotAfter) {
		t.Errorf("the context's certificate ends on %v", after.NotAfter)
	}
}

func (p *person) certificate(name string) *x509.Certificate {
	p.t.Helper()
	config, err := client.LoadConfig(filepath.Join(p.home, "config.yaml"))
	if err != nil {
		p.t.Fatal(err)
	}
	pair, err := pki.Load([]byte(config.Contexts[name].Certificate), []byte(config.Contexts[name].Key))
	if err != nil {
		p.t.Fatal(err)
	}
	return pair.Certificate
}

func TestUserDataHoldsNoKeyOfTheCA(t *testing.T) {
	p := newPerson(t, "")
	dir, out := filepath.Join(p.home, "pki"), filepath.Join(p.home, "user-data.yaml")
	p.want(exitOK, "gen", "ca", "--dir", dir)
	p.want(exitOK, "gen", "user-data", "lab1", "--dir", dir, "-f", p.file("mount.yaml", mountYAML), "-o", out)
	data, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{"ca": false, "node-lab1": true} {
		key, err := os.ReadFile(filepath.Join(dir, name+".key"))
		if err != nil {
			t.Fatal(err)
		}
		line := strings.Split(string(key), "\n")[1]
		if strings.Contains(string(data), line) != want {
			t.Errorf("key of %s in the user data: %v; want %v", name, !want, want)
		}
	}
	if text := p.want(exitOK, "validate", "-f", out); text != "2 resources valid\n" {
		t.Errorf("said %q", text)
	}
	if text := p.want(exitOK, "gen", "user-data", "lab2", "--self-signed", "--dir", dir); strings.Contains(text, "PRIVATE KEY") || !strings.Contains(text, "BEGIN CERTIFICATE") {
		t.Errorf("self-signed: %s", text)
	}
	p.want(exitUsage, "gen", "user-data", "Lab_3", "--dir", dir)
}

// What is there may be the only copy of a key.
func TestUserDataReplacesNoFileUnasked(t *testing.T) {
	p := newPerson(t, "")
	dir := filepath.Join(p.home, "pki")
	p.want(exitOK, "gen", "ca", "--dir", dir)
	out := p.file("user-data.yaml", "mine\n")
	if text := p.want(exitError, "gen", "user-data", "lab1", "--dir", dir, "-o", out); !strings.Contains(text, out+" is there already (--force replaces it)") {
		t.Errorf("said %q", text)
	}
	if data, err := os.ReadFile(out); string(data) != "mine\n" {
		t.Errorf("the file has %q, %v", data, err)
	}
	if _, err := os.Stat(filepath.Join(dir, "node-lab1.key")); err == nil {
		t.Error("a pair was made for user data that nobody has got")
	}
	p.want(exitOK, "gen", "user-data", "lab1", "--dir", dir, "-o", out, "--force")
	if data, err := os.ReadFile(out); !strings.Contains(string(data), "PRIVATE KEY") {
		t.Errorf("with --force the file has %q, %v", data, err)
	}
}
