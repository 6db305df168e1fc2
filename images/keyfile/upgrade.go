package keyfile

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"fmt"
	"strings"
)

// WriteUpgrade makes a key that upgrades are signed with in the directory dir, as Write does:
//
//	upgrade.key          private; signs upgrades
//	upgrade.pub          its public half, as a definition names it
//	upgrade-policy.yaml  an UpgradePolicies resource: whoever has it takes what the key has signed, and nothing else
func WriteUpgrade(dir string) ([]string, error) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	privateDER, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, err
	}
	publicDER, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return nil, err
	}
	half := PEM("PUBLIC KEY", publicDER)
	return Write(dir, []File{
		{Name: "upgrade.key", Mode: Private, Data: PEM("PRIVATE KEY", privateDER)},
		{Name: "upgrade.pub", Mode: Public, Data: half},
		{Name: "upgrade-policy.yaml", Mode: Public, Data: policy(half)},
	})
}

// policy is a document with which a node takes the upgrades of one key.
func policy(key []byte) []byte {
	out := &bytes.Buffer{}
	out.WriteString("# Whose upgrades a node takes.\nmetadata: {type: UpgradePolicies.machine.cosi.dev, id: node}\nspec:\n  keys:\n    - |\n")
	for line := range strings.Lines(string(key)) {
		fmt.Fprintf(out, "      %s", line)
	}
	return out.Bytes()
}
