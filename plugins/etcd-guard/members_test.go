package etcdguard

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
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

	"google.golang.org/protobuf/types/known/durationpb"

	etcdpb "github.com/cosi-os/cosi/api/cosi/etcd/v1alpha1"
)

// patience is how long something may take on a busy machine before a test gives it up.
const patience = 2 * time.Minute

// etcd is a cluster of real members, on addresses of 127.0.0.0/8 that nobody else has.
type etcd struct {
	t         *testing.T
	dir       string
	addresses []string
	running   []*exec.Cmd // nil: it is down
	cert, key string      // PEM; server, client and CA at once
}

// startEtcd starts three members that speak TLS with their clients, and waits until they have a leader.
func startEtcd(t *testing.T) *etcd {
	t.Helper()
	if _, err := exec.LookPath("etcd"); err != nil {
		t.Fatal("etcd is missing; hack/setup test installs it: ", err)
	}
	e := &etcd{t: t, dir: t.TempDir(), running: make([]*exec.Cmd, 3)}
	subnet := fmt.Sprintf("127.%d.%d.", 1+mathrand.IntN(254), mathrand.IntN(256))
	for n := range e.running {
		e.addresses = append(e.addresses, fmt.Sprintf("%s%d", subnet, n+1))
	}
	e.makePair()
	for n := range e.running {
		e.up(n)
	}
	for n := range e.running {
		e.waitHealthy(n)
	}
	return e
}

func (e *etcd) makePair() {
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
	for _, a := range e.addresses {
		template.IPAddresses = append(template.IPAddresses, net.ParseIP(a))
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
	for file, content := range map[string]string{"cert": e.cert, "key": e.key} {
		if err := os.WriteFile(filepath.Join(e.dir, file), []byte(content), 0o600); err != nil {
			e.t.Fatal(err)
		}
	}
}

func name(n int) string { return fmt.Sprintf("m%d", n) }

func (e *etcd) client(n int) string { return "https://" + e.addresses[n] + ":2379" }
func (e *etcd) peer(n int) string   { return "http://" + e.addresses[n] + ":2380" }

// up starts a member, as after a boot.
func (e *etcd) up(n int) {
	e.t.Helper()
	var all []string
	for i := range e.addresses {
		all = append(all, name(i)+"="+e.peer(i))
	}
	log, err := os.OpenFile(filepath.Join(e.dir, name(n)+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		e.t.Fatal(err)
	}
	defer log.Close()
	cert, key := filepath.Join(e.dir, "cert"), filepath.Join(e.dir, "key")
	// An election takes longer than a busy machine keeps a process waiting.
	cmd := exec.Command("etcd", "--name", name(n), "--data-dir", filepath.Join(e.dir, name(n)), "--listen-client-urls", e.client(n),
		"--advertise-client-urls", e.client(n), "--listen-peer-urls", e.peer(n), "--initial-advertise-peer-urls", e.peer(n),
		"--initial-cluster", strings.Join(all, ","), "--initial-cluster-state", "new", "--heartbeat-interval", "300", "--election-timeout", "3000",
		"--client-cert-auth", "--cert-file", cert, "--key-file", key, "--trusted-ca-file", cert)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		e.t.Fatal(err)
	}
	e.running[n] = cmd
	e.t.Cleanup(func() { e.down(n) })
}

// down ends a member, as its node does.
func (e *etcd) down(n int) {
	if e.running[n] != nil {
		_ = e.running[n].Process.Kill()
		_ = e.running[n].Wait()
		e.running[n] = nil
	}
}

// guard is the configuration of the node of a member.
func (e *etcd) guard(n int) *etcdpb.EtcdGuard {
	g := &etcdpb.EtcdGuard{Member: name(n), Ca: e.cert, Certificate: e.cert, Key: e.key, Deadline: durationpb.New(time.Minute)}
	for n := range e.addresses {
		g.Endpoints = append(g.Endpoints, e.client(n))
	}
	return g
}

// view is the cluster as it is now.
func (e *etcd) view(n int) (*view, error) {
	ctx, cancel := context.WithTimeout(e.t.Context(), 10*time.Second)
	defer cancel()
	c, err := connect(e.guard(n))
	if err != nil {
		e.t.Fatal(err)
	}
	defer c.close()
	return c.inspect(ctx)
}

func (e *etcd) waitHealthy(n int) *view {
	e.t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(100 * time.Millisecond) {
		v, err := e.view(n)
		if err == nil && v.own(name(n)).healthy && v.leader != 0 {
			return v
		}
		if time.Now().After(end) {
			log, _ := os.ReadFile(filepath.Join(e.dir, name(n)+".log"))
			e.t.Fatalf("%s is not healthy after %v: %v, %+v\n%s", name(n), patience, err, v, log)
		}
	}
}

// leader returns the number of the member that leads.
func (e *etcd) leader() int {
	e.t.Helper()
	for n, cmd := range e.running {
		if cmd == nil {
			continue
		}
		v := e.waitHealthy(n)
		for i := range e.running {
			if name(i) == v.name(v.leader) {
				return i
			}
		}
	}
	e.t.Fatal("nobody leads")
	return -1
}
