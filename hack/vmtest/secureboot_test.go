package vmtest_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	machinepb "github.com/cosi-os/cosi/api/cosi/machine/v1alpha1"
	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	securitypb "github.com/cosi-os/cosi/api/cosi/security/v1alpha1"
	storagepb "github.com/cosi-os/cosi/api/cosi/storage/v1alpha1"
	"github.com/cosi-os/cosi/api/quote"
	"github.com/cosi-os/cosi/hack/swtpmtest"
	"github.com/cosi-os/cosi/hack/vmtest"
	images "github.com/cosi-os/cosi/images/build"
	"github.com/cosi-os/cosi/images/inspect"
	"github.com/cosi-os/cosi/images/secureboot"
	"github.com/cosi-os/cosi/tools/qemu"
)

// A machine whose firmware knows no keys yet takes those on the disk at its first boot, and is under Secure Boot from then on. There a node leaves
// alone what anybody may have put on the EFI system partition, or plugged in with the label CIDATA; it takes its user data from the URL that its signed
// image names, and believes the server because the image's definition pins its CA. What was measured on the way is what the image's builder predicted, and the TPM signs that; the node's
// state is sealed to it.
func TestSecureBoot(t *testing.T) {
	vmtest.Parallel(t, 40)
	vmtest.Host(t)
	id, dir := vmtest.Identity(t), t.TempDir()
	data, err := id.UserData()
	if err != nil {
		t.Fatal(err)
	}
	url, ca := serveTLS(t, string(data))
	image := buildImage(t, dir, ca, "cosi.userdata="+url)
	writeText(t, filepath.Join(dir, "user-data.yaml"), kept("planted"))
	judged(t, "mcopy", "-i", image+"@@2M", filepath.Join(dir, "user-data.yaml"), "::user-data.yaml")

	if err := os.Truncate(image, 1<<30); err != nil { // room for a state, which is sealed
		t.Fatal(err)
	}

	n := vmtest.Start(t, vmtest.Options{
		File: image, Identity: id, NoUserData: true, Extra: startTPM(t, swtpmtest.Dir(t)),
		Disks: []qemu.Disk{{ID: "seed", File: seed(t, filepath.Join(dir, "seed"), kept("plugged")), Format: "raw", ReadOnly: true}},
	})
	n.Ready(t)
	n.Expect(t, 0, `Enrolling secure boot keys`)
	source := &machinepb.UserDataSource{}
	if n.Get(t, "userdatasources", "url", source); source.GetState() != "Applied" || source.GetUnauthenticated() {
		t.Errorf("the URL as a source: %v", source)
	}
	const why = "not read under Secure Boot, unless the image's definition says user_data.disks_under_secure_boot: true"
	for disk, document := range map[string]string{"esp-vda2": "planted", "cidata-vdb": "plugged"} {
		n.Until(t, "userdatasources", disk, source, func(*resourcepb.Metadata) bool { return source.GetState() != "" })
		if source.GetState() != "Refused" || !strings.Contains(source.GetMessage(), why) {
			t.Errorf("%s as a source: %v", disk, source)
		}
		if n.Get(t, "mountpoints", document, &storagepb.MountPoint{}) != nil {
			t.Errorf("the document on %s was applied", disk)
		}
		n.Expect(t, 0, `user data `+disk+`: Refused: .*under Secure Boot`)
	}
	n.Expect(t, 0, `user data url: Applied, 1 of 1 documents\r?\n`)
	checkAttestation(t, n, image)
	checkSealed(t, n)
	n.PressPower(t)
}

// A firmware that has taken the keys runs nothing that was changed after it was signed, by one letter of the kernel's arguments.
func TestAChangedBootImageIsNotRun(t *testing.T) {
	if os.Getenv("COSI_TEST_BOOTS") != "all" {
		t.Skip("COSI_TEST_BOOTS is not all (make test-boot)")
	}
	vmtest.Parallel(t, 30)
	vmtest.Host(t)
	dir := t.TempDir()
	_, ca := serveTLS(t, "")
	image := buildImage(t, dir, ca, "cosi.test=letter")
	file, onESP := filepath.Join(dir, "boot.efi"), "::"+kernelOf(t, image)
	judged(t, "mcopy", "-i", image+"@@2M", onESP, file)
	data, err := os.ReadFile(file)
	if err != nil || bytes.Count(data, []byte("cosi.test=letter")) != 1 {
		t.Fatalf("no argument to change: %v", err)
	}
	writeText(t, file, strings.Replace(string(data), "cosi.test=letter", "cosi.test=Letter", 1))
	judged(t, "mcopy", "-o", "-i", image+"@@2M", file, onESP)

	n := vmtest.Start(t, vmtest.Options{File: image, NoUserData: true})
	n.Expect(t, 0, `Enrolling secure boot keys`)
	n.Expect(t, 0, `(Access Denied|Access denied|Security Violation)`)
	if strings.Contains(n.Console.Tail(1000), "engine: ") {
		t.Error("it was run")
	}
}

// checkAttestation compares what the TPM says with what the image is.
func checkAttestation(t *testing.T, n *vmtest.Node, image string) {
	t.Helper()
	status := &securitypb.SecurityStatus{}
	n.Until(t, "security", "security", status, func(m *resourcepb.Metadata) bool { return m != nil })
	if status.GetSecureBoot() != "Enabled" || status.GetLockdown() != "integrity" || status.GetModules() != checksModules("base") || status.GetTpm() != "Present" {
		t.Errorf("security: %v", status)
	}
	opened, err := inspect.Open(image)
	if err != nil {
		t.Fatal(err)
	}
	defer opened.Close()
	report, err := opened.Report()
	if err != nil {
		t.Fatal(err)
	}
	measured := &securitypb.PlatformMeasurement{}
	n.Until(t, "pcr", "pcr-11", measured, func(m *resourcepb.Metadata) bool { return m != nil })
	if measured.GetSha256() != report.PCR11 || measured.GetLog() != "Complete" {
		t.Errorf("PCR 11 is %v; cosi-image inspect says %s", measured, report.PCR11)
	}
	n.Get(t, "pcr", "pcr-07", measured)
	var vouched bool
	for _, e := range measured.GetEvents() {
		vouched = vouched || e.GetType() == "EV_EFI_VARIABLE_AUTHORITY" && e.GetDescription() == "db: CN=test db"
	}
	if !vouched || measured.GetLog() != "Complete" {
		t.Errorf("who vouched for the boot image: %v", measured)
	}
	for _, pcr := range []string{"pcr-00", "pcr-02", "pcr-04"} {
		if n.Get(t, "pcr", pcr, measured); measured.GetLog() != "Complete" {
			t.Errorf("%s: %s: %s", pcr, measured.GetLog(), measured.GetMessage())
		}
	}
	nonce := make([]byte, 16)
	rand.Read(nonce)
	n.Apply(t, "metadata: {type: quote, id: vm}\nspec: {nonce: "+base64.StdEncoding.EncodeToString(nonce)+", pcrs: [7, 11]}\n")
	answer := &securitypb.AttestationStatus{}
	n.Until(t, "attestationstatuses", "vm", answer, func(*resourcepb.Metadata) bool { return answer.GetReason() != "" })
	values, err := quote.Verify(answer, nonce)
	if err != nil || hex.EncodeToString(values[11]) != report.PCR11 {
		t.Errorf("the quote: %x, %v, %s", values, err, answer.GetMessage())
	}
}

// startTPM has a TPM in software run that keeps what it has in a directory (swtpmtest.Dir), and returns what connects a VM to it. It ends with the VM, even
// where the test was killed.
func startTPM(t *testing.T, dir string) []string {
	t.Helper()
	socket := filepath.Join(dir, "s")
	os.Remove(socket) // of a VM before
	cmd := exec.Command(needed(t, "swtpm"), "socket", "--tpm2", "--terminate", "--tpmstate", "dir="+dir, "--ctrl", "type=unixio,path="+socket)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	for range 200 {
		if _, err := os.Stat(socket); err == nil {
			return []string{"-chardev", "socket,id=tpm,path=" + socket, "-tpmdev", "emulator,id=tpm0,chardev=tpm", "-device", "tpm-crb,tpmdev=tpm0"}
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Fatal("swtpm does not start")
	return nil
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

// signedDefinition is what a definition in a directory says beside the base image's: the directory's own CA and keys, and one more kernel argument.
func signedDefinition(argument string) string {
	return fmt.Sprintf(`plugins: [attestation, volume]
kernel: {arguments: [%q]}
user_data: {url_ca: ca.pem}
secure_boot: {key: keys/db.key, certificate: keys/db.crt, enroll: if-safe, variables: keys}
pcr_policy: {key: keys/pcr.key, public_key: keys/pcr.pub}
`, argument)
}

// buildImage builds a raw image of what the base image's definition and signedDefinition say into dir, and makes the CA and the keys there first.
func buildImage(t *testing.T, dir string, ca []byte, argument string) string {
	t.Helper()
	tree, err := filepath.Abs(filepath.Join("..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	base, err := filepath.Rel(dir, filepath.Join(tree, "images", vmtest.StandIn("base")+".yaml"))
	if err != nil {
		t.Fatal(err)
	}
	cache, err := images.CacheDir()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := secureboot.WriteKeys(filepath.Join(dir, "keys"), "test", time.Now()); err != nil {
		t.Fatal(err)
	}
	writeText(t, filepath.Join(dir, "ca.pem"), string(ca))
	definition := filepath.Join(dir, "pinned.yaml")
	writeText(t, definition, fmt.Sprintf("name: pinned\nextends: %s\n%soutputs: [raw]\n", base, signedDefinition(argument)))
	_, err = images.Run(t.Context(), images.Options{
		Tree: tree, Output: dir, Cache: cache, Mirror: os.Getenv("COSI_MIRROR"),
		Phase: func(string) func(string) { return func(string) {} }, Log: t.Logf,
	}, definition)
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, "cosi-pinned-amd64.raw")
}

func writeText(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
