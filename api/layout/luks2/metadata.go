package luks2

import (
	"bytes"
	"crypto/pbkdf2"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"slices"
	"strconv"
)

// metadata is the JSON of a header. What is not for this package stays as it is.
type metadata struct {
	Keyslots map[string]json.RawMessage `json:"keyslots"`
	Tokens   map[string]json.RawMessage `json:"tokens"`
	Segments map[string]segment         `json:"segments"`
	Digests  map[string]digest          `json:"digests"`
	Config   json.RawMessage            `json:"config"`
}

// number is written as text, because JSON's own are not exact beyond 53 bits.
type number int64

func (n number) MarshalJSON() ([]byte, error) { return json.Marshal(strconv.FormatInt(int64(n), 10)) }

func (n *number) UnmarshalJSON(b []byte) error {
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return err
	}
	v, err := strconv.ParseInt(s, 10, 64)
	if err != nil || v < 0 {
		return fmt.Errorf("%q is no number of bytes", s)
	}
	*n = number(v)
	return nil
}

// segment is where the data is.
type segment struct {
	Type       string   `json:"type"`
	Offset     number   `json:"offset"`
	Size       string   `json:"size"`
	IVTweak    number   `json:"iv_tweak"`
	Encryption string   `json:"encryption"`
	SectorSize int64    `json:"sector_size"`
	Flags      []string `json:"flags,omitempty"`
}

// digest tells whether a key is that of the data.
type digest struct {
	Type       string   `json:"type"`
	Keyslots   []string `json:"keyslots"`
	Segments   []string `json:"segments"`
	Hash       string   `json:"hash"`
	Iterations int      `json:"iterations"`
	Salt       []byte   `json:"salt"`
	Digest     []byte   `json:"digest"`
}

type config struct {
	JSONSize     number `json:"json_size"`
	KeyslotsSize number `json:"keyslots_size"`
}

// iterations are the fewest that cryptsetup takes.
const iterations = 1000

// mostIterations bounds the work that a header can ask for. cryptsetup takes the time of 2 s, which on a fast machine are some 10 million.
const mostIterations = 20_000_000

func newMetadata() metadata {
	c, _ := json.Marshal(config{headerSize - binarySize, DataOffset - areasAt}) // plain numbers
	return metadata{
		Keyslots: map[string]json.RawMessage{}, Tokens: map[string]json.RawMessage{}, Config: c,
		Segments: map[string]segment{"0": {Type: "crypt", Offset: DataOffset, Size: "dynamic", Encryption: Cipher, SectorSize: Sector}},
		Digests:  map[string]digest{},
	}
}

// digest has a key vouched for.
func (m *metadata) digest(key []byte) error {
	d := digest{Type: "pbkdf2", Keyslots: []string{}, Segments: []string{"0"}, Hash: "sha256", Iterations: iterations, Salt: random(32)}
	var err error
	d.Digest, err = derive(d.Hash, key, d.Salt, d.Iterations, sha256.Size)
	m.Digests["0"] = d
	return err
}

// is reports whether a key is that of the data.
func (m *metadata) is(key []byte) bool {
	d := m.Digests["0"]
	sum, err := derive(d.Hash, key, d.Salt, d.Iterations, len(d.Digest))
	return err == nil && len(d.Digest) >= 20 && bytes.Equal(sum, d.Digest)
}

// derive makes a key from a passphrase (RFC 8018).
func derive(name string, passphrase, salt []byte, n, size int) ([]byte, error) {
	h, err := hashOf(name)
	if err != nil {
		return nil, err
	}
	if n < 1 || n > mostIterations || size < 1 || size > 4*KeySize {
		return nil, fmt.Errorf("LUKS2 header: %d bytes after %d iterations make no sense", size, n)
	}
	return pbkdf2.Key(h, string(passphrase), salt, n, size)
}

func hashOf(name string) (func() hash.Hash, error) {
	switch name {
	case "sha256":
		return sha256.New, nil
	case "sha512":
		return sha512.New, nil
	}
	return nil, fmt.Errorf("LUKS2 header: hash %q: want sha256 or sha512", name)
}

// check finds what this package cannot work with. size is that of one copy of the header.
func (m *metadata) check(size int64) error {
	if m.Keyslots == nil || m.Digests == nil {
		return errors.New("LUKS2 header: keyslots or digests are missing")
	}
	if m.Tokens == nil {
		m.Tokens = map[string]json.RawMessage{}
	}
	s, err := m.segment()
	if err != nil {
		return err
	}
	var c config
	if err := json.Unmarshal(m.Config, &c); err != nil {
		return fmt.Errorf("LUKS2 header: config: %w", err)
	}
	var features struct {
		Requirements struct {
			Mandatory []string `json:"mandatory"`
		} `json:"requirements"`
	}
	if err := json.Unmarshal(m.Config, &features); err != nil || len(features.Requirements.Mandatory) > 0 {
		return fmt.Errorf("LUKS2 header: it requires %q", features.Requirements.Mandatory)
	}
	if int64(c.KeyslotsSize) > int64(s.Offset)-2*size || int64(c.KeyslotsSize) > 128<<20 {
		return fmt.Errorf("LUKS2 header: %d bytes of keyslots do not fit before the data at %d", c.KeyslotsSize, s.Offset)
	}
	if _, ok := m.Digests["0"]; !ok || len(m.Digests) != 1 {
		return fmt.Errorf("LUKS2 header: %d digests: want one, 0", len(m.Digests))
	}
	return nil
}

// segment returns the only one.
func (m *metadata) segment() (segment, error) {
	s, ok := m.Segments["0"]
	switch {
	case !ok || len(m.Segments) != 1:
		return s, fmt.Errorf("LUKS2 header: %d segments: want one, 0", len(m.Segments))
	case s.Type != "crypt" || s.Encryption != Cipher || len(s.Flags) > 0:
		return s, fmt.Errorf("LUKS2 header: a segment of %s by %s %v: want crypt by %s", s.Type, s.Encryption, s.Flags, Cipher)
	case !slices.Contains([]int64{512, 1024, 2048, 4096}, s.SectorSize) || s.Offset%4096 != 0:
		return s, fmt.Errorf("LUKS2 header: sectors of %d bytes at %d make no sense", s.SectorSize, s.Offset)
	}
	return s, nil
}
