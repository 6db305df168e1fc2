package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/nclient4"

	"github.com/cosi-os/cosi/hack/netnstest"
	"github.com/cosi-os/cosi/tools/cosi-boot/internal/image/imagetest"
	"github.com/cosi-os/cosi/tools/cosi-boot/internal/nettest"
	"github.com/cosi-os/cosi/tools/qemu"
)

func TestMain(m *testing.M) { netnstest.Main(m) }

func cosiBoot(t *testing.T, arguments ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, err bytes.Buffer
	code = run(t.Context(), arguments, &out, &err)
	return code, out.String(), err.String()
}

func TestMistakesAreSaid(t *testing.T) {
	link, _ := nettest.Link(t)
	dir := t.TempDir()
	machines := filepath.Join(dir, "machines.yaml")
	if err := os.WriteFile(machines, []byte("machines: [{mac: x}]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	good := filepath.Join(dir, "good.yaml")
	if err := os.WriteFile(good, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	serve := func(more ...string) []string {
		return append([]string{"serve", "--state", dir, "--interface", link.Name, "--machines", good, "--tftp=false", "--http", "0", "--https", "0"}, more...)
	}
	taken, err := net.Listen("tcp4", "192.0.2.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	_, port, _ := net.SplitHostPort(taken.Addr().String())
	lost := filepath.Join(dir, "lost.yaml")
	if err := os.WriteFile(lost, []byte("default: {image: nothere}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		arguments []string
		code      int
		want      string
	}{
		{nil, 0, "Boots machines over the network"},
		{[]string{"serve"}, 2, "say on which interface"},
		{[]string{"serve", "--interface", link.Name}, 2, "--machines FILE"},
		{serve("here"), 2, "1 argument does not fit: cosi-boot serve --interface NAME"},
		{serve("--nonsense"), 2, "unknown flag"},
		{serve("--interface", "none0"), 1, "interface none0: there is none of this name (lo, "},
		{serve("--http", port), 1, "another server on this machine has it; --http PORT takes another port"},
		{serve("--machines", lost, "--http", port), 1, "WARNING: " + lost + ": image " + dir + "/nothere: "},
		{serve("--interface", "clients"), 1, "interface clients: has no IPv4 address"},
		{serve("--machines", machines), 1, machines + ":1: machines[0].mac: "},
		{serve("--http-boot", "ftp"), 2, "must be http or https"},
		{serve("--certificate", machines), 2, "go together"},
		{serve("--certificate", machines, "--key", machines), 1, "--certificate, --key: "},
		{serve("--http", "81", "--https", "81"), 2, "are both 81"},
		{serve("--admin", "0.0.0.0:8068"), 2, "must be an address of the loopback"},
		{serve("--admin", "192.0.2.1:8068"), 2, "must be an address of the loopback"},
		{serve("--admin", "8068"), 2, "must be an address of the loopback"},
		{serve("--dhcp", "10.0.0.1-10.0.0.9"), 2, "not in 192.0.2.0/24"},
		{serve("--dhcp", "yes"), 2, "two addresses with a hyphen"},
		{serve("--router", "192.0.2.9"), 2, "are for a server that gives addresses"},
		{serve("--dhcp", "192.0.2.9-192.0.2.10", "--dns", "x"), 2, `--dns: "x" is not an IPv4 address`},
		{serve("--tree", dir), 1, "--tree: "},
		{[]string{"machines", "-o", "xml"}, 2, "must be one of table, json"},
		{[]string{"machines"}, 1, "no boot server answers"},
		{[]string{"post"}, 2, "0 arguments do not fit: cosi-boot post DEFINITION"},
		{[]string{"post", filepath.Join(dir, "none.yaml")}, 1, "none.yaml: no such file"},
	} {
		code, stdout, stderr := cosiBoot(t, tc.arguments...)
		if code != tc.code || !strings.Contains(stdout+stderr, tc.want) {
			t.Errorf("%v: exit %d, want %d and %q\n%s%s", tc.arguments, code, tc.code, tc.want, stdout, stderr)
		}
	}
}

// running is a server that serve runs on a link, with its own output.
func running(t *testing.T, more ...string) (dir string, clients *net.Interface, out *qemu.Console) {
	t.Helper()
	link, clients := nettest.Link(t)
	dir = t.TempDir()
	imagetest.Write(t, dir, 300_000)
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("a.yaml", "metadata: {}\n")
	write("machines.yaml", "machines: [{mac: '52:54:00:aa:bb:01', image: cosi-tiny-amd64, user_data: a.yaml}]\n")
	out = qemu.NewConsole(nil)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan int)
	arguments := append([]string{"serve", "--interface", link.Name, "--machines", filepath.Join(dir, "machines.yaml"), "--state", filepath.Join(dir, "state")}, more...)
	go func() { done <- run(ctx, arguments, out, out) }()
	t.Cleanup(func() {
		cancel()
		if code := <-done; code != 0 || t.Failed() {
			t.Errorf("serve ended with %d:\n%s", code, out.Tail(50))
		}
	})
	patience, stop := context.WithTimeout(t.Context(), 20*time.Second)
	defer stop()
	if _, err := out.Wait(patience, 0, regexp.MustCompile(`(?m)^  page .*\n`)); err != nil {
		t.Fatal(err)
	}
	return dir, clients, out
}

// A machine goes the way that the server tells it, over real sockets, and the list and what the server says agree.
func TestServing(t *testing.T) {
	dir, clients, out := running(t, "--dhcp", "192.0.2.10-192.0.2.19", "--routed")
	if said := out.Tail(50); !strings.Contains(said, "cosi-boot on server, 192.0.2.1/24") || !strings.Contains(said, "server:67 ") || !strings.Contains(said, "192.0.2.1:69 ") {
		t.Errorf("it says:\n%s", said)
	}
	hardware, _ := net.ParseMAC("52:54:00:aa:bb:01")
	firmware, err := nclient4.New(clients.Name, nclient4.WithHWAddr(hardware), nclient4.WithTimeout(time.Second), nclient4.WithRetry(2))
	if err != nil {
		t.Fatal(err)
	}
	defer firmware.Close()
	lease, err := firmware.Request(t.Context(), dhcpv4.WithOption(dhcpv4.OptClassIdentifier("PXEClient")), dhcpv4.WithOption(dhcpv4.OptClientArch(7)), dhcpv4.WithUserClass("iPXE", false))
	if err != nil {
		t.Fatal(err)
	}
	url := lease.ACK.BootFileNameOption()
	if url != "http://192.0.2.1:8080/boot/52-54-00-aa-bb-01/start.ipxe" {
		t.Fatalf("iPXE is told %s", url)
	}
	script := get(t, http.DefaultClient, strings.Replace(url, "start", "machine", 1))
	m := regexp.MustCompile(`cosi\.userdata=(https://192\.0\.2\.1:8443/user-data/\w+)#sha256=[0-9a-f]{64} *\nchain cosi-tiny-amd64\.ipxe\n`).FindStringSubmatch(script)
	if m == nil {
		t.Fatalf("the script:\n%s", script)
	}
	if kernel := get(t, http.DefaultClient, strings.Replace(url, "start.ipxe", "cosi-tiny-amd64.vmlinuz", 1)); len(kernel) != 1536 {
		t.Errorf("the kernel has %d bytes", len(kernel))
	}
	pem, err := os.ReadFile(filepath.Join(dir, "state", "https.crt"))
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	secure := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}}
	defer secure.CloseIdleConnections()
	if data := get(t, secure, m[1]); data != "metadata: {}\n" {
		t.Errorf("the user data are %q", data)
	}
	code, stdout, stderr := cosiBoot(t, "machines")
	if code != 0 || !regexp.MustCompile(`(?m)^52:54:00:aa:bb:01 +192\.0\.2\.1 +UEFI +cosi-tiny-amd64 +user-data +1 +0s +$`).MatchString(stdout) {
		t.Errorf("machines: %d\n%s%s", code, stdout, stderr)
	}
	if code, stdout, _ := cosiBoot(t, "machines", "-o", "json"); code != 0 || !strings.Contains(stdout, `"stage": "user-data"`) {
		t.Errorf("machines -o json: %d\n%s", code, stdout)
	}
	file := filepath.Join(dir, "mine.yaml")
	if err := os.WriteFile(file, []byte("name: mine\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, _, stderr := cosiBoot(t, "post", file); code != 1 || !strings.Contains(stderr, "it takes --tree") {
		t.Errorf("post: %d %s", code, stderr)
	}
	if conn, err := net.DialTimeout("tcp", "192.0.2.1:8068", time.Second); err == nil {
		conn.Close()
		t.Error("machines reach the page")
	}
}

func get(t *testing.T, client *http.Client, url string) string {
	t.Helper()
	r, err := client.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	data, err := io.ReadAll(r.Body)
	if err == nil && r.StatusCode != http.StatusOK {
		err = errors.New(r.Status)
	}
	if err != nil {
		t.Fatalf("%s: %v: %.100q", url, err, data)
	}
	return string(data)
}

// The certificate is made once, and again for another address.
func TestTheCertificateIsKept(t *testing.T) {
	dir, o, now := t.TempDir(), &options{}, time.Now()
	made := func(address string) string {
		t.Helper()
		c, file, err := o.certificate(dir, netip.MustParseAddr(address), now, t.Logf)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Leaf.VerifyHostname(address); err != nil || file != filepath.Join(dir, "https.crt") {
			t.Errorf("%s: %v", file, err)
		}
		return fmt.Sprintf("%x", c.Leaf.Raw)
	}
	first := made("192.0.2.1")
	if again := made("192.0.2.1"); again != first {
		t.Error("the second time there is another")
	}
	if other := made("192.0.2.2"); other == first {
		t.Error("another address has the same")
	}
	now = now.AddDate(20, 0, 0)
	made("192.0.2.2")
	if info, err := os.Stat(filepath.Join(dir, "https.key")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the key: %v, %v", info.Mode(), err)
	}
}

// Firmware without elliptic curves is served if it is to boot by HTTPS, and only then. Whoever knows better gets better.
func TestHTTPSOfOldFirmware(t *testing.T) {
	address := netip.MustParseAddr("192.0.2.1")
	for _, boots := range []string{"http", "https"} {
		o := &options{firmware: boots}
		certificate, _, err := o.certificate(t.TempDir(), address, time.Now(), t.Logf)
		if err != nil {
			t.Fatal(err)
		}
		known := x509.NewCertPool()
		known.AddCert(certificate.Leaf)
		handshake := func(suites ...uint16) (uint16, error) {
			t.Helper()
			ours, theirs := net.Pipe()
			defer theirs.Close()
			go func() {
				defer ours.Close()
				_ = tls.Server(ours, o.secure(certificate)).HandshakeContext(t.Context()) // the client has the same error
			}()
			client := tls.Client(theirs, &tls.Config{RootCAs: known, ServerName: address.String(), MaxVersion: tls.VersionTLS12, CipherSuites: suites})
			err := client.HandshakeContext(t.Context())
			return client.ConnectionState().CipherSuite, err
		}
		for _, suite := range []uint16{tls.TLS_RSA_WITH_AES_256_GCM_SHA384, tls.TLS_RSA_WITH_AES_128_GCM_SHA256} {
			if got, err := handshake(suite); (err == nil) != (boots == "https") || err == nil && got != suite {
				t.Errorf("--http-boot %s: %s: %s, %v", boots, tls.CipherSuiteName(suite), tls.CipherSuiteName(got), err)
			}
		}
		want := uint16(tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256)
		if got, err := handshake(tls.TLS_RSA_WITH_AES_256_GCM_SHA384, want); err != nil || got != want {
			t.Errorf("--http-boot %s, with a choice: %s, %v", boots, tls.CipherSuiteName(got), err)
		}
	}
}

// Who has posted a definition looks for its mistakes in the file that he knows.
func TestMistakesAreThoseOfTheFileThatWasPosted(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "posted.yaml:1: name: missing\nposted.yaml:2: plugins: none", http.StatusBadRequest)
	}))
	defer server.Close()
	file := filepath.Join(t.TempDir(), "mine.yaml")
	if err := os.WriteFile(file, []byte("name: mine\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	code, _, stderr := cosiBoot(t, "post", "--admin", strings.TrimPrefix(server.URL, "http://"), file)
	if code != 1 || !strings.Contains(stderr, file+":1: name: missing\n"+file+":2: plugins: none\n") {
		t.Errorf("exit %d, %s", code, stderr)
	}
}
