package pki

import (
	"fmt"
	"os"
	"path/filepath"
)

// Store keeps pairs in a directory, each as NAME.crt and NAME.key (mode 0600).
type Store struct{ Dir string }

// CAName is the store's name for the authority.
const CAName = "ca"

// NodeName is the store's name for the pair of a node.
func NodeName(node string) string { return "node-" + node }

// ClientName is the store's name for the pair of a client.
func ClientName(client string) string { return "client-" + client }

// CertFile is where the certificate called name is kept.
func (s Store) CertFile(name string) string { return filepath.Join(s.Dir, name+".crt") }

// KeyFile is where the key called name is kept.
func (s Store) KeyFile(name string) string { return filepath.Join(s.Dir, name+".key") }

// Load reads a pair. The error wraps fs.ErrNotExist when there is none.
func (s Store) Load(name string) (*Pair, error) {
	cert, err := os.ReadFile(s.CertFile(name))
	if err != nil {
		return nil, err
	}
	key, err := os.ReadFile(s.KeyFile(name))
	if err != nil {
		return nil, err
	}
	p, err := Load(cert, key)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.CertFile(name), err)
	}
	return p, nil
}

// Save writes a pair, over one that is there. The key is written first, so that no certificate stands without its key.
func (s Store) Save(name string, p *Pair) error {
	if err := os.MkdirAll(s.Dir, 0o700); err != nil {
		return err
	}
	if err := WriteFile(s.KeyFile(name), p.KeyPEM, 0o600); err != nil {
		return err
	}
	return WriteFile(s.CertFile(name), p.CertPEM, 0o644)
}

// Names returns the names of all pairs, sorted.
func (s Store) Names() ([]string, error) {
	files, err := filepath.Glob(filepath.Join(s.Dir, "*.crt"))
	if err != nil {
		return nil, err
	}
	for i, file := range files {
		name := filepath.Base(file)
		files[i] = name[:len(name)-len(".crt")]
	}
	return files, nil
}

// WriteFile replaces a file as a whole: whoever reads it sees the old bytes or the new ones.
func WriteFile(path string, data []byte, mode os.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // gone once renamed
	if err := writeAndClose(f, data, mode); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return os.Rename(f.Name(), path)
}

func writeAndClose(f *os.File, data []byte, mode os.FileMode) error {
	defer f.Close()
	if err := f.Chmod(mode); err != nil {
		return err
	}
	if _, err := f.Write(data); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	return f.Close()
}
