package definition

import (
	"path/filepath"
	"strings"
	"testing"
)

func TestForeignNamesNoFiles(t *testing.T) {
	for text, want := range map[string]string{
		"name: mine\nextends: base.yaml\nkernel: {arguments: [quiet]}\n":                    "",
		"name: mine\nextends: ../base.yaml\n":                                               "x.yaml:2: extends: ",
		"name: mine\nextends: /etc/passwd\n":                                                "x.yaml:2: extends: ",
		"name: mine\nextends: ..\n":                                                         "x.yaml:2: extends: ",
		"name: mine\nextends: passwd\n":                                                     "x.yaml:2: extends: ",
		"name: mine\nextends: &a base.yaml\nextensions:\n  - /etc\n":                        "x.yaml:4: extensions[0]: ",
		"name: mine\nuser_data:\n  url_ca: ca.pem\n":                                        "x.yaml:3: user_data.url_ca: ",
		"name: mine\nupgrade: {key: /etc/shadow}\n":                                         "x.yaml:2: upgrade.key: ",
		"name: mine\nsecure_boot: {key: /etc/shadow}\n":                                     "x.yaml:2: secure_boot.key: ",
		"name: mine\nsecure_boot: {key: 'pkcs11:?pin-value=7'}\n":                           "x.yaml:2: secure_boot.key: \"pkcs11:?pin-value=\": ",
		"name: mine\nsecure_boot: {certificate: /etc/shadow}\n":                             "x.yaml:2: secure_boot.certificate: ",
		"name: mine\nsecure_boot: {variables: /etc/shadow}\n":                               "x.yaml:2: secure_boot.variables: ",
		"name: mine\npcr_policy: {key: /etc/shadow}\n":                                      "x.yaml:2: pcr_policy.key: ",
		"name: mine\npcr_policy: {public_key: /etc/shadow}\n":                               "x.yaml:2: pcr_policy.public_key: ",
		"name: mine\npartitions:\n  extra: [{name: a, size: 1MiB, content: /etc/shadow}]\n": "x.yaml:3: partitions.extra[0].content: ",
		"name: Mine\n": "x.yaml:1: name: ",
		"[":            "x.yaml:2: ",
		"":             "x.yaml:1: ",
	} {
		err := Foreign("x.yaml", []byte(text))
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("Foreign(%q) = %v; want %q", text, err, want)
		}
	}
}

func FuzzForeign(f *testing.F) {
	f.Add([]byte("name: mine\nextends: base.yaml\npartitions: {extra: [{name: a, size: 1MiB}]}\n"))
	f.Add([]byte("extends: a.yaml\nextends: ../b.yaml\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		if Foreign("x.yaml", text) != nil {
			return
		}
		d, _, _ := parse("x.yaml", text)
		if d.Extends != "" && filepath.Join("/dir", d.Extends) != "/dir/"+d.Extends || len(d.Extensions) > 0 || d.UserData.URLCA+d.Upgrade.Key+d.SecureBoot.Key+d.SecureBoot.Certificate+d.SecureBoot.Variables+d.PCRPolicy.Key+d.PCRPolicy.PublicKey != "" {
			t.Errorf("of %q, files are named: %+v", text, d)
		}
	})
}
