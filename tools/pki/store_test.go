package pki

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestStoreKeepsPairs(t *testing.T) {
	store := Store{Dir: filepath.Join(t.TempDir(), "pki")}
	if _, err := store.Load(CAName); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Load of an empty store: %v", err)
	}
	ca := must(t)(maker(t, now).CA("lab"))
	for _, name := range []string{CAName, NodeName("n1"), CAName} {
		if err := store.Save(name, ca); err != nil {
			t.Fatal(err)
		}
	}
	read := must(t)(store.Load(CAName))
	if Fingerprint(read.Certificate) != Fingerprint(ca.Certificate) {
		t.Error("another certificate came back")
	}
	info, err := os.Stat(store.KeyFile(CAName))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("key file: %v, %v", info, err)
	}
	names, err := store.Names()
	if err != nil || !slices.Equal(names, []string{CAName, "node-n1"}) {
		t.Errorf("Names() = %v, %v", names, err)
	}
	if left, _ := filepath.Glob(filepath.Join(store.Dir, ".*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestLoadRefusesAKeyOfAnotherCertificate(t *testing.T) {
	m := maker(t, now)
	a, b := must(t)(m.CA("a")), must(t)(m.CA("b"))
	if _, err := Load(a.CertPEM, b.KeyPEM); err == nil {
		t.Error("a stranger's key was taken")
	}
}
