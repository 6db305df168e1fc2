// Package etcdtest runs an etcd of three real members, for the tests of the plugin etcd-guard: beside the test, and seen from a node in a VM.
package etcdtest

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	mathrand "math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	etcdpb "github.com/cosi-os/cosi/api/cosi/etcd/v1alpha1"
)

// Patience is how long something may take on a busy machine before a test gives it up.
const Patience = 2 * time.Minute

// Etcd is a cluster that ends with the test.
type Etcd struct {
	t         testing.TB
	dir       string
	members   []*member
	cert, key string // PEM; server, client and CA at once
	pair      tls.Certificate
}

type member struct {
	listens, advertised, peer string    // URLs
	cmd                       *exec.Cmd // nil: it is down
}

// Start starts three members that speak TLS with their clients. They have addresses of 127.0.0.0/8 that nobody else has, or, if 127.0.0.1 is
// known to their clients as another host, ports of that.
func Start(t testing.TB, host string) *Etcd {
	t.Helper()
	if _, err := exec.LookPath("etcd"); err != nil {
		t.Fatal("etcd is missing; hack/setup test installs it: ", err)
	}
	e := &Etcd{t: t, dir: t.TempDir()}
	subnet := fmt.Sprintf("127.%d.%d.", 1+mathrand.IntN(254), mathrand.IntN(256))
	names := []string{host, "127.0.0.1"}
	for n := range 3 {
		address := fmt.Sprint(subnet, n+1)
		m := &member{listens: "https://" + address + ":2379", peer: "http://" + address + ":2380"}
		m.advertised = m.listens
		if host != "" {
			port := e.freePort()
			m.listens, m.advertised = "https://127.0.0.1:"+port, "https://"+net.JoinHostPort(host, port)
		}
		e.members, names = append(e.members, m), append(names, address)
	}
	e.makePair(names)
	for n := range e.members {
		e.Up(n)
	}
	return e
}

func (e *Etcd) freePort() string {
	e.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		e.t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}

func (e *Etcd) makePair(addresses []string) {
	e.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		e.t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "etcd"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	for _, a := range addresses {
		if ip := net.ParseIP(a); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		}
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		e.t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		e.t.Fatal(err)
	}
	e.cert = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}))
	e.key = string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	if e.pair, err = tls.X509KeyPair([]byte(e.cert), []byte(e.key)); err != nil {
		e.t.Fatal(err)
	}
	for file, content := range map[string]string{"cert": e.cert, "key": e.key} {
		if err := os.WriteFile(filepath.Join(e.dir, file), []byte(content), 0o600); err != nil {
			e.t.Fatal(err)
		}
	}
}

// Name is that of a member, by its number: 0, 1 or 2.
func Name(n int) string { return fmt.Sprintf("m%d", n) }

// Up starts a member, as after a boot. It does not wait until it is healthy.
func (e *Etcd) Up(n int) {
	e.t.Helper()
	var all []string
	for i, m := range e.members {
		all = append(all, Name(i)+"="+m.peer)
	}
	log, err := os.OpenFile(e.log(n), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		e.t.Fatal(err)
	}
	defer log.Close()
	m, cert, key := e.members[n], filepath.Join(e.dir, "cert"), filepath.Join(e.dir, "key")
	// An election takes longer than a busy machine keeps a process waiting.
	cmd := exec.Command("etcd", "--name", Name(n), "--data-dir", filepath.Join(e.dir, Name(n)), "--listen-client-urls", m.listens,
		"--advertise-client-urls", m.advertised, "--listen-peer-urls", m.peer, "--initial-advertise-peer-urls", m.peer,
		"--initial-cluster", strings.Join(all, ","), "--initial-cluster-state", "new", "--heartbeat-interval", "300", "--election-timeout", "3000",
		"--client-cert-auth", "--cert-file", cert, "--key-file", key, "--trusted-ca-file", cert)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		e.t.Fatal(err)
	}
	m.cmd = cmd
	e.t.Cleanup(func() { e.Down(n) })
}

func (e *Etcd) log(n int) string { return filepath.Join(e.dir, Name(n)+".log") }

// Down ends a member, as its node does.
func (e *Etcd) Down(n int) {
	if m := e.members[n]; m.cmd != nil {
		_ = m.cmd.Process.Kill()
		_ = m.cmd.Wait()
		m.cmd = nil
	}
}

// Guard is the configuration of the node of a member.
func (e *Etcd) Guard(n int) *etcdpb.EtcdGuard {
	g := &etcdpb.EtcdGuard{Member: Name(n), Ca: e.cert, Certificate: e.cert, Key: e.key}
	for _, m := range e.members {
		g.Endpoints = append(g.Endpoints, m.advertised)
	}
	return g
}

// Leader waits until all members that are up agree on a leader, and returns its number.
func (e *Etcd) Leader() int {
	e.t.Helper()
	for end := time.Now().Add(Patience); ; time.Sleep(100 * time.Millisecond) {
		leader, err := e.leader()
		if err == nil {
			return leader
		}
		if time.Now().After(end) {
			e.t.Fatalf("no leader after %v: %v\n%s", Patience, err, e.logs())
		}
	}
}

func (e *Etcd) leader() (int, error) {
	leader, ids := uint64(0), map[uint64]int{}
	for n, m := range e.members {
		if m.cmd == nil {
			continue
		}
		st, err := e.status(m.listens)
		if err != nil {
			return 0, fmt.Errorf("%s: %w", Name(n), err)
		}
		ids[st.Header.MemberId] = n
		if st.Leader == 0 || leader != 0 && st.Leader != leader {
			return 0, fmt.Errorf("%s takes %x for the leader, another one %x", Name(n), st.Leader, leader)
		}
		leader = st.Leader
	}
	n, up := ids[leader]
	if !up {
		return 0, fmt.Errorf("%x leads, and is down", leader)
	}
	return n, nil
}

func (e *Etcd) status(url string) (*clientv3.StatusResponse, error) {
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM([]byte(e.cert))
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{url}, Logger: zap.NewNop(), TLS: &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{e.pair}, MinVersion: tls.VersionTLS12}})
	if err != nil {
		return nil, err
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(e.t.Context(), 10*time.Second)
	defer cancel()
	if _, err := c.Get(ctx, "/"); err != nil { // it has applied all that a quorum has
		return nil, err
	}
	return c.Status(ctx, url)
}

func (e *Etcd) logs() string {
	var all strings.Builder
	for n := range e.members {
		text, _ := os.ReadFile(e.log(n))
		fmt.Fprintf(&all, "%s:\n%s\n", Name(n), text)
	}
	return all.String()
}
