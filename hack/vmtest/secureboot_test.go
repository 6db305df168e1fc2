package vmtest_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	machinepb "github.com/cosi-os/cosi/api/cosi/machine/v1alpha1"
	storagepb "github.com/cosi-os/cosi/api/cosi/storage/v1alpha1"
	"github.com/cosi-os/cosi/hack/vmtest"
	images "github.com/cosi-os/cosi/images/build"
)

// Debian's package ovmf has variables with the keys of a test enrolled, and their private key, which is no secret.
const (
	snakeoilVariables = "/usr/share/OVMF/OVMF_VARS_4M.snakeoil.fd"
	snakeoilKey       = "/usr/share/ovmf/PkKek-1-snakeoil.key"
	snakeoilCert      = "/usr/share/ovmf/PkKek-1-snakeoil.pem"
)

// Under Secure Boot a node leaves alone what anybody may have put on the EFI system partition. It takes its user data from the URL that
// its signed image names, and believes the server because the image's definition pins its CA.
func TestSecureBoot(t *testing.T) {
	vmtest.Parallel(t, 20)
	vmtest.Host(t)
	id, dir := vmtest.Identity(t), t.TempDir()
	data, err := id.UserData()
	if err != nil {
		t.Fatal(err)
	}
	url, ca := serveTLS(t, string(data))
	image := buildImage(t, dir, ca, "cosi.userdata="+url)
	sign(t, dir, image)
	writeText(t, filepath.Join(dir, "user-data.yaml"), kept("planted"))
	judged(t, "mcopy", "-i", image+"@@2M", filepath.Join(dir, "user-data.yaml"), "::user-data.yaml")

	n := vmtest.Start(t, vmtest.Options{File: image, Identity: id, NoUserData: true, Variables: snakeoilVariables})
	n.Ready(t)
	source := &machinepb.UserDataSource{}
	if n.Get(t, "userdatasources", "url", source); source.GetState() != "Applied" || source.GetUnauthenticated() {
		t.Errorf("the URL as a source: %v", source)
	}
	const why = "not read under Secure Boot, unless the image's definition says user_data.esp_under_secure_boot: true"
	if n.Get(t, "userdatasources", "esp-vda2", source); source.GetState() != "Refused" || !strings.Contains(source.GetMessage(), why) {
		t.Errorf("the system partition as a source: %v", source)
	}
	if n.Get(t, "mountpoints", "planted", &storagepb.MountPoint{}) != nil {
		t.Error("the planted document was applied")
	}
	n.Expect(t, 0, `user data esp-vda2: Refused: .*under Secure Boot`)
	n.Expect(t, 0, `user data url: Applied, 1 of 1 documents\r?\n`)
	n.PressPower(t)
}

// serveTLS serves text to VMs of this host, which know it as 10.0.2.2. It returns the URL and the certificate that vouches for it.
func serveTLS(t *testing.T, text string) (url string, ca []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour), IPAddresses: []net.IP{net.IPv4(10, 0, 2, 2)},
	}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(serves(text))
	server.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{certificate}, PrivateKey: key}}}
	server.StartTLS()
	t.Cleanup(server.Close)
	return seenFromGuest(server), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate})
}

func serves(text string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, text) })
}

// seenFromGuest is a server's URL in QEMU's user-mode network.
func seenFromGuest(s *httptest.Server) string {
	return strings.Replace(s.URL, "127.0.0.1", "10.0.2.2", 1) + "/user-data"
}

// buildImage builds a raw image into dir: the base image with a pinned CA and one more kernel argument.
func buildImage(t *testing.T, dir string, ca []byte, argument string) string {
	t.Helper()
	tree, err := filepath.Abs(filepath.Join("..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	base, err := filepath.Rel(dir, filepath.Join(tree, "images", "base.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	cache, err := images.CacheDir()
	if err != nil {
		t.Fatal(err)
	}
	writeText(t, filepath.Join(dir, "ca.pem"), string(ca))
	definition := filepath.Join(dir, "pinned.yaml")
	writeText(t, definition, fmt.Sprintf("name: pinned\nextends: %s\nkernel: {arguments: [%q]}\nuser_data: {url_ca: ca.pem}\noutputs: [raw]\n", base, argument))
	_, err = images.Run(t.Context(), images.Options{
		Tree: tree, Output: dir, Cache: cache, Mirror: os.Getenv("COSI_MIRROR"),
		Phase: func(string) func(string) { return func(string) {} }, Log: t.Logf,
	}, definition)
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, "cosi-pinned-amd64.raw")
}

// sign signs the boot manager and the boot image on a disk with the key that snakeoilVariables enrol.
func sign(t *testing.T, dir, image string) {
	t.Helper()
	if _, err := os.Stat(snakeoilVariables); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	key := filepath.Join(dir, "snakeoil.key")
	judged(t, "openssl", "pkey", "-passin", "pass:snakeoil", "-in", snakeoilKey, "-out", key)
	for i, path := range []string{"::EFI/BOOT/BOOTX64.EFI", "::" + kernelOf(t, image)} {
		plain, signed := filepath.Join(dir, fmt.Sprint(i, ".efi")), filepath.Join(dir, fmt.Sprint(i, ".signed.efi"))
		judged(t, "mcopy", "-i", image+"@@2M", path, plain)
		judged(t, "sbsign", "--key", key, "--cert", snakeoilCert, "--output", signed, plain)
		judged(t, "mcopy", "-o", "-i", image+"@@2M", signed, path)
	}
}

func writeText(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
