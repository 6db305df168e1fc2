package definition

import (
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cosi-os/cosi/api/upgrade"
	"github.com/cosi-os/cosi/images/pkcs11"
	"github.com/cosi-os/cosi/images/secureboot"
	"github.com/cosi-os/cosi/images/strict"
	"github.com/cosi-os/cosi/initramfs"
)

// SecureBoot says who signs what UEFI starts, and how a firmware gets to know him.
type SecureBoot struct {
	// Key and Certificate are paths, relative to the definition's, of a private RSA key and of its certificate, both PEM. Only a build opens the key:
	// who verifies an image needs none. Key may be the URI of one in a token: it then says here which key that is, and Token how to get at it, too.
	Key         string `yaml:"key"`
	Certificate string `yaml:"certificate"`
	// Enroll is when the boot loader has a firmware in setup mode take the keys in Variables: one of Enrolments; empty is "off".
	Enroll string `yaml:"enroll"`
	// Variables is the path, relative to the definition's, of the directory that holds PK.auth, KEK.auth and db.auth.
	Variables string `yaml:"variables"`

	Token *pkcs11.URI `yaml:"-"`
	// Signer is the certificate that was read, and Files what the variables' files hold, by their names.
	Signer *x509.Certificate `yaml:"-"`
	Files  map[string][]byte `yaml:"-"`
}

// PCRPolicy says who signs which boot images may have what a TPM keeps: see package pcr.
type PCRPolicy struct {
	// Key and PublicKey are paths, relative to the definition's, of the two halves of an RSA key, both PEM. Only a build opens Key, which may be in a token: see
	// SecureBoot.
	Key       string `yaml:"key"`
	PublicKey string `yaml:"public_key"`

	Token *pkcs11.URI `yaml:"-"`
	// Public is the key that was read.
	Public *rsa.PublicKey `yaml:"-"`
}

// Enrolments are systemd-boot's words for secure-boot-enroll: see loader.conf(5).
var Enrolments = []string{"off", "manual", "if-safe", "force"}

// Enrols reports whether a boot loader may have the firmware take keys.
func (s *SecureBoot) Enrols() bool { return s.Enroll != "" && s.Enroll != "off" }

// readSigning reads what the definition in file names, but for the private keys.
func (d *Definition) readSigning(file string, lines map[string]int) (problems Problems) {
	problem := func(field string, err error) {
		if err != nil {
			problems = append(problems, Problem{File: file, Line: lines[field], Field: field, Message: err.Error()})
		}
	}
	read := func(field string, path *string, do func() error) {
		switch {
		case *path == "":
		case pkcs11.Is(*path):
			problem(field, errors.New("want a file: only a private key is in a token"))
		default:
			*path = beside(file, *path)
			problem(field, do())
		}
	}
	key := func(field string, name *string, token **pkcs11.URI) {
		var err error
		switch {
		case *name == "":
		case !pkcs11.Is(*name):
			*name = beside(file, *name)
		default:
			if *token, err = pkcs11.Parse(*name, filepath.Dir(file)); err == nil {
				*name = (*token).String()
			}
			problem(field, err)
		}
	}
	s, p, u := &d.SecureBoot, &d.PCRPolicy, &d.Upgrade
	key("secure_boot.key", &s.Key, &s.Token)
	key("pcr_policy.key", &p.Key, &p.Token)
	key("upgrade.key", &u.Key, &u.Token)
	read("secure_boot.certificate", &s.Certificate, func() (err error) {
		s.Signer, err = secureboot.ReadCertificate(s.Certificate)
		return err
	})
	read("secure_boot.variables", &s.Variables, func() (err error) {
		s.Files = map[string][]byte{}
		for _, v := range secureboot.Variables {
			name := string(v) + ".auth"
			if s.Files[name], err = os.ReadFile(filepath.Join(s.Variables, name)); err != nil {
				return err
			}
		}
		return nil
	})
	read("pcr_policy.public_key", &p.PublicKey, func() (err error) {
		p.Public, err = secureboot.ReadPublicKey(p.PublicKey)
		return err
	})
	read("upgrade.public_key", &u.PublicKey, func() error {
		data, err := os.ReadFile(u.PublicKey)
		if err != nil {
			return err
		}
		if u.Public, err = upgrade.ParseKey(string(data)); err != nil {
			err = fmt.Errorf("%s: %w", u.PublicKey, err)
		}
		return err
	})
	return problems
}

// mergeSigning says over what d says.
func (d *Definition) mergeSigning(over *Definition, said func(string) bool) {
	s, o := &d.SecureBoot, over.SecureBoot
	set(said("secure_boot.key"), &s.Key, o.Key)
	set(said("secure_boot.key"), &s.Token, o.Token)
	set(said("secure_boot.certificate"), &s.Certificate, o.Certificate)
	set(said("secure_boot.certificate"), &s.Signer, o.Signer)
	set(said("secure_boot.enroll"), &s.Enroll, o.Enroll)
	set(said("secure_boot.variables"), &s.Variables, o.Variables)
	set(said("secure_boot.variables"), &s.Files, o.Files)
	set(said("pcr_policy.key"), &d.PCRPolicy.Key, over.PCRPolicy.Key)
	set(said("pcr_policy.key"), &d.PCRPolicy.Token, over.PCRPolicy.Token)
	set(said("pcr_policy.public_key"), &d.PCRPolicy.PublicKey, over.PCRPolicy.PublicKey)
	set(said("pcr_policy.public_key"), &d.PCRPolicy.Public, over.PCRPolicy.Public)
	set(said("upgrade.key"), &d.Upgrade.Key, over.Upgrade.Key)
	set(said("upgrade.key"), &d.Upgrade.Token, over.Upgrade.Token)
	set(said("upgrade.public_key"), &d.Upgrade.PublicKey, over.Upgrade.PublicKey)
	set(said("upgrade.public_key"), &d.Upgrade.Public, over.Upgrade.Public)
}

// wholeSigning finds a half of what belongs together.
func (d *Definition) wholeSigning() (problems Problems) {
	problem := func(field, near, format string, args ...any) {
		at := d.Origin(near, "")
		problems = append(problems, Problem{File: at.File, Line: at.Line, Field: field, Message: fmt.Sprintf(format, args...)})
	}
	s, p, u := d.SecureBoot, d.PCRPolicy, d.Upgrade
	for _, pair := range []struct{ has, value, needs, missing, why string }{
		{"secure_boot.key", s.Key, "secure_boot.certificate", s.Certificate, "a firmware knows a key by its certificate"},
		{"secure_boot.certificate", s.Certificate, "secure_boot.key", s.Key, "what is signed is signed with its key"},
		{"secure_boot.variables", s.Variables, "secure_boot.key", s.Key, "a firmware that has taken the variables runs nothing unsigned"},
		{"pcr_policy.key", p.Key, "pcr_policy.public_key", p.PublicKey, "a TPM knows a key by its public half"},
		{"pcr_policy.public_key", p.PublicKey, "pcr_policy.key", p.Key, "what is signed is signed with its private half"},
		{"upgrade.key", u.Key, "upgrade.public_key", u.PublicKey, "nodes know a key by its public half"},
		{"upgrade.public_key", u.PublicKey, "upgrade.key", u.Key, "what is signed is signed with its private half"},
	} {
		if pair.value != "" && pair.missing == "" {
			problem(pair.needs, pair.has, "missing: %s", pair.why)
		}
	}
	switch {
	case s.Enrols() && s.Variables == "":
		problem("secure_boot.variables", "secure_boot.enroll", "missing: %s enrols what is there", s.Enroll)
	case s.Variables != "" && !s.Enrols():
		problem("secure_boot.enroll", "secure_boot.variables", "missing: nothing would enrol the variables (%s)", strings.Join(Enrolments[1:], ", "))
	}
	if d.State.Seal == SealAlways && !slices.Contains(slices.Concat(d.Plugins, d.SeparatePlugins), Sealer) {
		problem("plugins", "state.seal", "missing: %s, which seals the state", Sealer)
	}
	if p.Key != "" && d.Initramfs.Compression == initramfs.LZ4 {
		problem("pcr_policy", "pcr_policy.key", "systemd-stub puts an archive behind the initramfs, which the kernel takes for damage of one with lz4: want initramfs.compression: none")
	}
	return problems
}

// signing finds words that make no sense.
func (c *checker) signing(d *Definition) {
	if e := d.SecureBoot.Enroll; e != "" && !slices.Contains(Enrolments, e) {
		c.Problem(c.Lines["secure_boot.enroll"], "secure_boot.enroll", "%s", strict.Among(e, "a way to enrol", Enrolments))
	}
}
