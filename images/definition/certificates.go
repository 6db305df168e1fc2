package definition

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// readURLCA reads the certificates that the definition in file names.
func (d *Definition) readURLCA(file string, lines map[string]int) Problems {
	u := &d.UserData
	if u.URLCA == "" {
		return nil
	}
	u.URLCA = beside(file, u.URLCA)
	var err error
	if u.URLCertificates, err = os.ReadFile(u.URLCA); err == nil {
		if err = certificates(u.URLCertificates); err != nil {
			err = fmt.Errorf("%s: %w", u.URLCA, err)
		}
	}
	if err != nil {
		const field = "user_data.url_ca"
		return Problems{{File: file, Line: lines[field], Field: field, Message: err.Error()}}
	}
	return nil
}

// beside is the path of what the definition in file names.
func beside(file, path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(filepath.Dir(file), path)
}

// certificates checks that data are certificates in PEM, and nothing else: what is in an image is no secret.
func certificates(data []byte) error {
	block, rest := pem.Decode(data)
	if block == nil {
		return errors.New("holds no certificate in PEM")
	}
	for ; block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			return fmt.Errorf("holds a %s: want certificates only", block.Type)
		}
		if _, err := x509.ParseCertificate(block.Bytes); err != nil {
			return err
		}
	}
	if bytes.Contains(rest, []byte("-----BEGIN")) {
		return errors.New("ends with a PEM block that is broken")
	}
	return nil
}
