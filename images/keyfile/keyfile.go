// Package keyfile writes keys into a directory, and never in place of others. What makes keys on the build machine calls it.
package keyfile

import (
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
)

// File is one that is to be written.
type File struct {
	Name string
	Mode os.FileMode
	Data []byte
}

// Private has the mode of a key that nobody else may read, and Public that of all others.
const (
	Private = os.FileMode(0o600)
	Public  = os.FileMode(0o644)
)

// Write writes files into the directory dir, which it makes. It replaces none: it fails if one of them is there. It returns the names of those that were
// written.
func Write(dir string, files []File) ([]string, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	for _, f := range files {
		if _, err := os.Lstat(filepath.Join(dir, f.Name)); err == nil {
			return nil, fmt.Errorf("%s is there already", filepath.Join(dir, f.Name))
		}
	}
	var names []string
	for _, f := range files {
		if err := writeNew(filepath.Join(dir, f.Name), f.Data, f.Mode); err != nil {
			return names, err
		}
		names = append(names, f.Name)
	}
	return names, nil
}

// writeNew writes a file that must not be there yet.
func writeNew(path string, data []byte, mode os.FileMode) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	if _, err := f.Write(data); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}

// PEM is what a file in PEM holds.
func PEM(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}
