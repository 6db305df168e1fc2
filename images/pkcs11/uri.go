package pkcs11

import (
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// scheme is what a URI begins with.
const scheme = "pkcs11:"

// Is reports whether the name of a key is a URI, and no file's.
func Is(name string) bool { return strings.HasPrefix(name, scheme) }

// URI names a private key (RFC 7512).
type URI struct {
	text string            // without the query: that says how to get at the key, and may hold a PIN
	key  map[string]string // which token, and which key in it
	how  map[string]string // module and PIN
}

// The attributes that a URI may have: those of the key, and behind the "?" those that say how to get at it.
var (
	ofToken = []string{"token", "manufacturer", "model", "serial", "slot-id"}
	ofKey   = append([]string{"object", "id", "type"}, ofToken...)
	ofQuery = []string{"module-path", "pin-source", "pin-value"}
)

// String is the URI without what is behind the "?".
func (u *URI) String() string { return u.text }

// Parse reads a URI. A file that it names relatively is beside others in dir. Errors quote nothing that may be a PIN.
func Parse(text, dir string) (u *URI, err error) {
	u = &URI{}
	var query string
	u.text, query, _ = strings.Cut(text, "?")
	if u.key, err = attributes(strings.TrimPrefix(u.text, scheme), ";", ofKey); err != nil {
		return nil, err
	}
	if u.how, err = attributes(query, "&", ofQuery); err != nil {
		return nil, fmt.Errorf("behind the \"?\": %w", err)
	}
	if slot, said := u.key["slot-id"]; said {
		number, err := strconv.ParseUint(slot, 10, 64)
		if err != nil {
			return nil, errors.New("slot-id is not a number")
		}
		u.key["slot-id"] = strconv.FormatUint(number, 10)
	}
	if kind, said := u.key["type"]; said && kind != "private" {
		return nil, errors.New("type: want private, which may be left out")
	}
	if module, said := u.how["module-path"]; said && !filepath.IsAbs(module) {
		return nil, errors.New("module-path is not an absolute path")
	}
	return u, u.findPIN(dir)
}

// findPIN makes the source of the PIN a path.
func (u *URI) findPIN(dir string) error {
	source, said := u.how["pin-source"]
	if !said {
		return nil
	}
	if _, both := u.how["pin-value"]; both {
		return errors.New("pin-source and pin-value are both there")
	}
	if strings.HasPrefix(source, "|") {
		return errors.New("pin-source: a build runs no program for a PIN: want a file")
	}
	source = strings.TrimPrefix(strings.TrimPrefix(source, "file:"), "//")
	if !filepath.IsAbs(source) {
		source = filepath.Join(dir, source)
	}
	u.how["pin-source"] = source
	return nil
}

// attributes reads one half of a URI. It quotes no value, and no name that it does not know: that may be the rest of one.
func attributes(text, separator string, known []string) (map[string]string, error) {
	all := map[string]string{}
	if text == "" {
		return all, nil
	}
	for part := range strings.SplitSeq(text, separator) {
		name, value, _ := strings.Cut(part, "=")
		if !slices.Contains(known, name) {
			if slices.Contains(ofQuery, name) {
				return nil, fmt.Errorf("%s belongs behind a \"?\"", name)
			}
			return nil, fmt.Errorf("want NAME=VALUE, with %q between them, of %s", separator, strings.Join(known, ", "))
		}
		if _, twice := all[name]; twice {
			return nil, fmt.Errorf("%s is there twice", name)
		}
		decoded, err := url.PathUnescape(value)
		if err != nil || decoded == "" {
			return nil, fmt.Errorf("%s is empty, or has a %% that is not followed by two hexadecimal digits", name)
		}
		all[name] = decoded
	}
	return all, nil
}

// pinValue is where a PIN stands in a text.
var pinValue = regexp.MustCompile(`(pin-value=)[^&"\s}]*`)

// WithoutPINs is a text without the PINs in its URIs: what may be hashed, as a PIN is guessed from a hash of it.
func WithoutPINs(text []byte) []byte { return pinValue.ReplaceAll(text, []byte("$1")) }
