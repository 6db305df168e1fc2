// Package softhsm has tokens in software, by SoftHSM, for tests of what signs with keys in tokens.
package softhsm

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/cosi-os/cosi/images/internal/judge"
)

// PIN is that of every token. A URI has it escaped.
const (
	PIN     = "p&n-7351"
	Escaped = "p%26n-7351"
)

// New has a module find no tokens but those of this test, and returns the module's path.
func New(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "softhsm2.conf")
	if err := os.WriteFile(file, fmt.Appendf(nil, "directories.tokendir = %s\nlog.level = ERROR\n", dir), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("SOFTHSM2_CONF", file)
	judge.Run(t, "softhsm2-util", "--version")
	for _, pattern := range []string{"/usr/lib/softhsm/libsofthsm2.so", "/usr/lib/*/softhsm/libsofthsm2.so", "/usr/lib64/pkcs11/libsofthsm2.so", "/usr/local/lib/softhsm/libsofthsm2.so"} {
		if found, err := filepath.Glob(pattern); err == nil && len(found) > 0 {
			return found[0]
		}
	}
	t.Fatal("softhsm2-util is installed, and libsofthsm2.so is nowhere")
	return ""
}

// Token makes a token.
func Token(t testing.TB, label string) {
	t.Helper()
	judge.Run(t, "softhsm2-util", "--init-token", "--free", "--label", label, "--so-pin", "12345678", "--pin", PIN)
}

// Import puts the key of a PEM file (PKCS #8) into a token. The id is in hexadecimal digits.
func Import(t testing.TB, token, file, label, id string) {
	t.Helper()
	judge.Run(t, "softhsm2-util", "--import", file, "--token", token, "--label", label, "--id", id, "--pin", PIN)
}
