package definition

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cosi-os/cosi/images/secureboot"
)

const signedBase = `name: base
arch: amd64
epoch: 2026-01-01T00:00:00Z
kernel: {flavour: cloud}
initramfs: {compression: lz4}
plugins: [mount]
outputs: [raw]
secure_boot: {key: keys/db.key, certificate: keys/db.crt, enroll: if-safe, variables: keys}
`

// signedFiles writes definitions that extend one which names copies of keys.
func signedFiles(t *testing.T, keys string, files ...string) string {
	t.Helper()
	file := write(t, append(files, "base.yaml", signedBase)...)
	if err := os.CopyFS(filepath.Join(filepath.Dir(file), "keys"), os.DirFS(keys)); err != nil {
		t.Fatal(err)
	}
	return file
}

// madeKeys is a directory with keys.
func madeKeys(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "keys")
	if _, err := secureboot.WriteKeys(dir, "test", time.Unix(1700000000, 0)); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestADefinitionNamesKeys(t *testing.T) {
	keys := madeKeys(t)
	file := signedFiles(t, keys, "over.yaml", `name: over
extends: base.yaml
initramfs: {compression: none}
secure_boot: {key: "pkcs11:token=build;object=db?module-path=/m.so&pin-value=7351", enroll: force}
pcr_policy: {key: keys/pcr.key, public_key: keys/pcr.pub}
`)
	d, err := Load(file, "")
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Dir(file)
	s := d.SecureBoot
	if s.Key != "pkcs11:token=build;object=db" || s.Certificate != filepath.Join(dir, "keys/db.crt") || s.Signer.Subject.String() != "CN=test db" || s.Token.String() != s.Key || !s.Enrols() || s.Enroll != "force" || len(s.Files) != 3 || len(s.Files["KEK.auth"]) == 0 {
		t.Errorf("secure_boot = %+v", s)
	}
	if p := d.PCRPolicy; p.Key != filepath.Join(dir, "keys/pcr.key") || p.Public.Size() != 256 {
		t.Errorf("pcr_policy = %+v", p)
	}
	text, err := d.YAML(func(path string) string { return strings.TrimPrefix(path, dir+"/") })
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(text), "7351") || strings.Contains(string(text), "m.so") {
		t.Errorf("how to get at a key is in\n%s", text)
	}
	again, err := Load(filepath.Join(filepath.Dir(signedFiles(t, keys, "again.yaml", string(text))), "again.yaml"), "")
	if err != nil || again.SecureBoot.Key != s.Key || again.SecureBoot.Enroll != "force" || again.PCRPolicy.Public == nil {
		t.Errorf("written and read again: %+v, %v", again, err)
	}
	replaced, err := Load(signedFiles(t, keys, "last.yaml", "name: last\nextends: over.yaml\nsecure_boot: {key: keys/db.key}\npcr_policy: {key: 'pkcs11:id=%01'}\n",
		"over.yaml", "name: over\nextends: base.yaml\ninitramfs: {compression: none}\nsecure_boot: {key: 'pkcs11:token=build'}\npcr_policy: {key: keys/pcr.key, public_key: keys/pcr.pub}\n"), "")
	if err != nil || replaced.SecureBoot.Token != nil || filepath.Base(replaced.SecureBoot.Key) != "db.key" || replaced.PCRPolicy.Token == nil {
		t.Errorf("replaced: %+v, %v", replaced, err)
	}
	without, err := Load(signedFiles(t, keys, "over.yaml", "name: over\nextends: base.yaml\nsecure_boot: {key: '', certificate: '', enroll: off, variables: ''}\n"), "")
	if err != nil || without.SecureBoot.Key != "" || without.SecureBoot.Signer != nil || without.SecureBoot.Enrols() {
		t.Errorf("taken back: %+v, %v", without, err)
	}
}

func TestHalfOfWhatSigningTakesIsAMistake(t *testing.T) {
	keys := madeKeys(t)
	for says, want := range map[string]string{
		"secure_boot: {key: ''}":                                     "base.yaml:8: secure_boot.key: missing: what is signed is signed with its key",
		"secure_boot: {certificate: ''}":                             "base.yaml:8: secure_boot.certificate: missing: a firmware knows a key by its certificate",
		"secure_boot: {certificate: '', key: ''}":                    "base.yaml:8: secure_boot.key: missing: a firmware that has taken the variables runs nothing unsigned",
		"secure_boot: {variables: ''}":                               "base.yaml:8: secure_boot.variables: missing: if-safe enrols what is there",
		"secure_boot: {enroll: off}":                                 "base.yaml:8: secure_boot.enroll: missing: nothing would enrol the variables (manual, if-safe, force)",
		"upgrade: {key: keys/u.key}":                                 "over.yaml:3: upgrade.public_key: missing: nodes know a key by its public half",
		"upgrade: {public_key: keys/pcr.pub}":                        "over.yaml:3: upgrade.public_key: ", // RSA
		"pcr_policy: {key: keys/pcr.key}":                            "over.yaml:3: pcr_policy.public_key: missing: a TPM knows a key by its public half",
		"pcr_policy: {public_key: keys/pcr.pub}":                     "over.yaml:3: pcr_policy.key: missing: what is signed is signed with its private half",
		"pcr_policy: {key: keys/no, public_key: keys/none}":          "over.yaml:3: pcr_policy.public_key: open ",
		"secure_boot: {key: 'pkcs11:tokens=build'}":                  "over.yaml:3: secure_boot.key: want NAME=VALUE",
		"pcr_policy: {key: 'pkcs11:?pin-value=1&pin-value=1'}":       "over.yaml:3: pcr_policy.key: behind the \"?\": pin-value is there twice",
		"upgrade: {key: 'pkcs11:slot-id=x'}":                         "over.yaml:3: upgrade.key: slot-id is not a number",
		"secure_boot: {certificate: 'pkcs11:object=db?pin-value=1'}": "over.yaml:3: secure_boot.certificate: want a file: only a private key is in a token",
		"state: {seal: always}":                                      "over.yaml:3: plugins: missing: volume, which seals the state",
		"state: {seal: allways}":                                     `over.yaml:3: state.seal: "allways" is not a way to seal`,
		"pcr_policy: {key: keys/pcr.key, public_key: keys/pcr.pub}": "over.yaml:3: pcr_policy: systemd-stub puts an archive behind the initramfs, " +
			"which the kernel takes for damage of one with lz4: want initramfs.compression: none",
	} {
		file := signedFiles(t, keys, "over.yaml", "name: over\nextends: base.yaml\n"+says+"\n")
		_, err := Load(file, "")
		if err == nil || !strings.Contains(err.Error(), filepath.Join(filepath.Dir(file), want)) {
			t.Errorf("%s: %v; want %s", says, err, want)
		}
	}
}
