package attestation

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
	"github.com/google/go-tpm/tpm2/transport/linuxudstpm"
	"google.golang.org/protobuf/proto"

	securitypb "github.com/cosi-os/cosi/api/cosi/security/v1alpha1"
	"github.com/cosi-os/cosi/api/quote"
	"github.com/cosi-os/cosi/engine/runtime/plugintest"
	"github.com/cosi-os/cosi/hack/swtpmtest"
	"github.com/cosi-os/cosi/sdk"
)

// start runs the plugin on a machine with some files.
func start(t *testing.T, m *machine, files map[string]string) *plugintest.Runtime {
	t.Helper()
	m.root = t.TempDir()
	for name, text := range files {
		file := filepath.Join(m.root, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	r := plugintest.Start(t, declared)
	t.Setenv(sdk.EnvEndpoint, r.Endpoint)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); _ = sdk.Run(ctx, plugin(m)) }()
	t.Cleanup(func() { cancel(); <-done })
	r.WaitReady()
	return r
}

func withTPM(socket string) *machine {
	return &machine{open: func() (transport.TPMCloser, error) { return linuxudstpm.Open(socket) }}
}

func waitFor[T proto.Message](t *testing.T, r *plugintest.Runtime, id string, spec T, is func(T) bool) T {
	t.Helper()
	r.Wait(id, func() bool { return r.Get(id, spec) != nil && is(spec) })
	return spec
}

func TestAMachineWithoutATPM(t *testing.T) {
	r := start(t, &machine{open: func() (transport.TPMCloser, error) {
		return nil, &fs.PathError{Op: "stat", Path: "/dev/tpmrm0", Err: fs.ErrNotExist}
	}}, map[string]string{
		"sys/kernel/security/lockdown": "none [integrity] confidentiality\n", "sys/module/module/parameters/sig_enforce": "N\n", "proc/modules": "",
	})
	status := waitFor(t, r, "security", &securitypb.SecurityStatus{}, func(*securitypb.SecurityStatus) bool { return true })
	if want := (&securitypb.SecurityStatus{SecureBoot: "Unsupported", Lockdown: "integrity", Modules: "Signed", Tpm: "Missing"}); !proto.Equal(status, want) {
		t.Errorf("status %v; want %v", status, want)
	}
	r.Apply("q", &securitypb.AttestationRequest{Nonce: []byte("01234567")})
	answer := waitFor(t, r, "q", &securitypb.AttestationStatus{}, func(a *securitypb.AttestationStatus) bool { return a.GetReason() == "NoTPM" })
	if answer.GetReady() || answer.GetObservedVersion() != "1" {
		t.Errorf("answer: %v", answer)
	}
	r.Delete("q", &securitypb.AttestationRequest{})
	r.Wait("its answer is gone", func() bool { return r.Get("q", answer) == nil })
}

func TestAMachineWhoseTPMDoesNotAnswer(t *testing.T) {
	r := start(t, &machine{open: func() (transport.TPMCloser, error) { return nil, errors.New("open /dev/tpmrm0: input/output error") }}, map[string]string{
		"sys/kernel/security/lockdown": "[none] integrity confidentiality\n", "sys/module/module/parameters/sig_enforce": "N\n", "proc/modules": "",
	})
	status := waitFor(t, r, "security", &securitypb.SecurityStatus{}, func(*securitypb.SecurityStatus) bool { return true })
	if want := (&securitypb.SecurityStatus{SecureBoot: "Unsupported", Lockdown: "none", Modules: "Any", Tpm: "Failed", Message: "open /dev/tpmrm0: input/output error"}); !proto.Equal(status, want) {
		t.Errorf("status %v; want %v", status, want)
	}
	r.Apply("q", &securitypb.AttestationRequest{Nonce: []byte("01234567")})
	waitFor(t, r, "q", &securitypb.AttestationStatus{}, func(a *securitypb.AttestationStatus) bool {
		return a.GetReason() == "Failed" && a.GetMessage() == status.GetMessage()
	})
}

func TestAKernelWithoutModules(t *testing.T) {
	m := &machine{root: t.TempDir()} // without /proc/modules, whatever else is in force
	if got := m.security().GetModules(); got != "None" {
		t.Errorf("modules %q; want None", got)
	}
}

func TestWhatWasMeasured(t *testing.T) {
	socket := swtpmtest.Start(t)
	chip := swtpmtest.Open(t, socket)
	for _, e := range []struct {
		pcr  int
		data string
	}{{4, "another program"}, {7, "SecureBoot"}, {11, ".linux\x00"}, {11, "a kernel"}, {12, "a command line"}} {
		swtpmtest.Extend(t, chip, e.pcr, e.data)
	}
	log := newLog()
	log.event(7, 0x80000001, "SecureBoot", variable("SecureBoot", "\x01"))
	log.event(4, 0x80000003, "a program", "no path of a program")
	log.event(11, 0x0d, ".linux\x00", "\x2e\x00l\x00i\x00n\x00u\x00x\x00\x00\x00")
	log.event(11, 0x0d, "a kernel", "a kernel\x00")
	r := start(t, withTPM(socket), map[string]string{eventLog: log.String(), "sys/module/module/parameters/sig_enforce": "Y\n", "proc/modules": ""})
	status := waitFor(t, r, "security", &securitypb.SecurityStatus{}, func(*securitypb.SecurityStatus) bool { return true })
	if status.GetTpm() != "Present" || !strings.HasPrefix(status.GetMessage(), "TPM 2.0 of IBM, firmware ") || status.GetModules() != "Signed" || status.GetLockdown() != "" {
		t.Errorf("status: %v", status)
	}
	get := func(id string) *securitypb.PlatformMeasurement {
		return waitFor(t, r, id, &securitypb.PlatformMeasurement{}, func(*securitypb.PlatformMeasurement) bool { return true })
	}
	if p := get("pcr-11"); p.GetLog() != "Complete" || p.GetMessage() != "2 events in the log give this value" || p.GetSha256() != after(".linux\x00", "a kernel") ||
		p.GetEvents()[0].GetDescription() != ".linux" || p.GetEvents()[0].GetType() != "EV_IPL" || p.GetEvents()[1].GetDescription() != "a kernel" || p.GetEvents()[1].GetNumber() != 4 {
		t.Errorf("PCR 11: %v", p)
	}
	if p := get("pcr-07"); p.GetLog() != "Complete" || p.GetEvents()[0].GetDescription() != "SecureBoot" || p.GetEvents()[0].GetType() != "EV_EFI_VARIABLE_DRIVER_CONFIG" {
		t.Errorf("PCR 7: %v", p)
	}
	if p := get("pcr-04"); p.GetLog() != "Incomplete" || p.GetSha256() != after("another program") || p.GetEvents()[0].GetDescription() != "" {
		t.Errorf("PCR 4: %v", p)
	}
	if p := get("pcr-12"); p.GetLog() != "None" || len(p.GetEvents()) != 0 {
		t.Errorf("PCR 12: %v", p)
	}
	for _, untouched := range []string{"pcr-00", "pcr-13", "pcr-17", "pcr-23"} {
		if r.Get(untouched, &securitypb.PlatformMeasurement{}) != nil {
			t.Errorf("%s is there, though nothing was measured into it", untouched)
		}
	}
}

// after is what a register holds, once these were measured into it.
func after(all ...string) string {
	value := make([]byte, sha256.Size)
	for _, data := range all {
		digest := sha256.Sum256([]byte(data))
		extended := sha256.Sum256(append(value, digest[:]...))
		value = extended[:]
	}
	return hex.EncodeToString(value)
}

func TestAQuoteIsGoodForItsNonceOnce(t *testing.T) {
	socket := swtpmtest.Start(t)
	chip := swtpmtest.Open(t, socket)
	swtpmtest.Extend(t, chip, 11, "a kernel")
	certificate := strings.Repeat("a certificate, say ", 40)
	keep(t, chip, certificates[1], certificate)
	r := start(t, withTPM(socket), map[string]string{eventLog: newLog().String()})

	request := &securitypb.AttestationRequest{Nonce: []byte("a nonce of somebody"), Pcrs: []uint32{11, 7}, EventLog: true}
	r.Apply("q", request)
	answer := waitFor(t, r, "q", &securitypb.AttestationStatus{}, func(a *securitypb.AttestationStatus) bool { return a.GetReason() != "" })
	if !answer.GetReady() || answer.GetReason() != "Quoted" || answer.GetMessage() != "2 registers" || string(answer.GetEkCertificate()) != certificate || string(answer.GetEventLog()) != newLog().String() {
		t.Fatalf("answer: %v", answer)
	}
	if answer.GetPcrs()[0].GetPcr() != 7 || hex.EncodeToString(answer.GetPcrs()[1].GetSha256()) != after("a kernel") {
		t.Errorf("registers: %v", answer.GetPcrs())
	}
	values, err := quote.Verify(answer, request.GetNonce())
	if err != nil || len(values) != 2 || hex.EncodeToString(values[11]) != after("a kernel") {
		t.Errorf("Verify = %x, %v", values, err)
	}
	checkRefused(t, answer, request.GetNonce())

	// What is asked the same is answered no second time, what is asked anew is; the key stays.
	r.Apply("other", &securitypb.AttestationRequest{Nonce: []byte("another nonce")})
	other := waitFor(t, r, "other", &securitypb.AttestationStatus{}, func(a *securitypb.AttestationStatus) bool { return a.GetReady() })
	if len(other.GetPcrs()) != 16 || len(other.GetEventLog()) != 0 || !verified(other, "another nonce") || !slices.Equal(other.GetAkPublic(), answer.GetAkPublic()) {
		t.Errorf("another: %v", other)
	}
	if again := r.Get("q", &securitypb.AttestationStatus{}); again.GetVersion() != "1" {
		t.Errorf("the first answer has version %s: it was given again", again.GetVersion())
	}
	swtpmtest.Extend(t, chip, 11, "more")
	request.Nonce = []byte("a fresh nonce")
	r.Apply("q", request)
	fresh := waitFor(t, r, "q", &securitypb.AttestationStatus{}, func(a *securitypb.AttestationStatus) bool { return a.GetObservedVersion() == "2" })
	if values, err := quote.Verify(fresh, request.GetNonce()); err != nil || string(values[11]) != string(fresh.GetPcrs()[1].GetSha256()) || hex.EncodeToString(fresh.GetPcrs()[1].GetSha256()) != after("a kernel", "more") {
		t.Errorf("asked anew: %v, %v", err, fresh)
	}
}

func verified(a *securitypb.AttestationStatus, nonce string) bool {
	_, err := quote.Verify(a, []byte(nonce))
	return err == nil
}

// checkRefused changes each part of a good answer.
func checkRefused(t *testing.T, good *securitypb.AttestationStatus, nonce []byte) {
	t.Helper()
	key, err := tpm2.Unmarshal[tpm2.TPMTPublic](good.GetAkPublic())
	if err != nil {
		t.Fatal(err)
	}
	key.ObjectAttributes.Restricted = false
	for name, tc := range map[string]struct {
		change func(a *securitypb.AttestationStatus)
		want   string
	}{
		"value":     {func(a *securitypb.AttestationStatus) { a.Pcrs[1].Sha256[0] ^= 1 }, "pcrs: the quote is over others"},
		"register":  {func(a *securitypb.AttestationStatus) { a.Pcrs[0].Pcr = 6 }, "pcrs: the quote is over others"},
		"twice":     {func(a *securitypb.AttestationStatus) { a.Pcrs[0].Pcr = 11 }, "pcrs: register 11"},
		"none":      {func(a *securitypb.AttestationStatus) { a.Pcrs = nil }, "pcrs: the quote is over others"},
		"clock":     {func(a *securitypb.AttestationStatus) { a.Quoted[len(a.Quoted)-60] ^= 1 }, ""},
		"cut":       {func(a *securitypb.AttestationStatus) { a.Quoted = a.Quoted[:20] }, "quoted: "},
		"signature": {func(a *securitypb.AttestationStatus) { a.Signature[len(a.Signature)-1] ^= 1 }, "signature: is not over the quote"},
		"no key":    {func(a *securitypb.AttestationStatus) { a.AkPublic = nil }, "ak_public: "},
		"free key":  {func(a *securitypb.AttestationStatus) { a.AkPublic = tpm2.Marshal(*key) }, "ak_public: the key may sign anything"},
	} {
		a := proto.CloneOf(good)
		tc.change(a)
		if _, err := quote.Verify(a, nonce); err == nil || !strings.HasPrefix(err.Error(), tc.want) {
			t.Errorf("%s: Verify = %v; want %q", name, err, tc.want)
		}
	}
	if _, err := quote.Verify(good, []byte("a nonce of another")); err == nil || err.Error() != "quoted: is an answer to another nonce" {
		t.Errorf("another nonce: %v", err)
	}
}
