package server_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"net"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	"github.com/cosi-os/cosi/engine/runtime/server"
	"github.com/cosi-os/cosi/engine/runtime/state"
	"github.com/cosi-os/cosi/engine/runtime/state/log"
	"github.com/cosi-os/cosi/engine/runtime/state/memory"
	"github.com/cosi-os/cosi/engine/runtime/state/statetest"
)

// everyWay calls check for each store on each sort of connection. connect returns a connection to an empty store of its own.
func everyWay(t *testing.T, check func(t *testing.T, connect func(*testing.T) grpc.ClientConnInterface)) {
	stores := map[string]func(*testing.T) state.State{
		"memory": func(*testing.T) state.State { return newStore() },
		"log":    newLog,
	}
	serving, trusting := certificate(t)
	servers := map[string]func(*testing.T, state.State) grpc.ClientConnInterface{
		"unix": func(t *testing.T, st state.State) grpc.ClientConnInterface { return serve(t, st) },
		"TLS": func(t *testing.T, st state.State) grpc.ClientConnInterface {
			listener, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			start(t, listener, st, grpc.Creds(credentials.NewTLS(serving)))
			return dial(t, listener.Addr().String(), credentials.NewTLS(trusting))
		},
	}
	for store, empty := range stores {
		for server, serve := range servers {
			t.Run(store+" "+server, func(t *testing.T) {
				check(t, func(t *testing.T) grpc.ClientConnInterface { return serve(t, empty(t)) })
			})
		}
	}
}

func TestServiceIsAState(t *testing.T) {
	everyWay(t, func(t *testing.T, connect func(*testing.T) grpc.ClientConnInterface) {
		statetest.Run(t, func(t *testing.T) state.State { return statetest.Client(connect(t)) })
	})
}

func TestServiceOnTheWire(t *testing.T) { everyWay(t, statetest.RunWire) }

// TestWhatOthersSeeByCodes: a client that knows codes alone finds the same rules kept.
func TestWhatOthersSeeByCodes(t *testing.T) {
	statetest.Run(t, func(t *testing.T) state.State {
		return statetest.Foreign(resourcepb.NewStateClient(serve(t, newStore())))
	})
}

func history(state.Kind) memory.Limits { return memory.Limits{Events: statetest.HistoryEvents} }

func newStore() *memory.Store { return memory.New(memory.Options{Limits: history}) }

// newLog returns a store that is closed after its server, which is started later.
func newLog(t *testing.T) state.State {
	store, err := log.Open(t.TempDir(), log.Options{Limits: history})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	return store
}

// serve serves st on a unix socket until the test ends, and returns a connection.
func serve(t testing.TB, st state.State) *grpc.ClientConn {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	start(t, listener, st)
	return dial(t, "unix:"+path, insecure.NewCredentials())
}

func start(t testing.TB, listener net.Listener, st state.State, options ...grpc.ServerOption) *grpc.Server {
	t.Helper()
	g := grpc.NewServer(append(server.Options(), options...)...)
	server.New(func(context.Context) (state.State, error) { return st, nil }).Register(g)
	done := make(chan error, 1)
	go func() { done <- g.Serve(listener) }()
	t.Cleanup(func() {
		g.Stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return g
}

func dial(t testing.TB, target string, c credentials.TransportCredentials) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(target, grpc.WithTransportCredentials(c))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// certificate returns the two sides' configurations around one self-signed certificate.
func certificate(t *testing.T) (serving, trusting *tls.Config) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"node"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(parsed)
	serving = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, MinVersion: tls.VersionTLS13}
	return serving, &tls.Config{RootCAs: roots, ServerName: "node", MinVersion: tls.VersionTLS13}
}
