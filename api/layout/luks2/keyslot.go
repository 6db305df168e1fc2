package luks2

import (
	"bytes"
	"crypto/aes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"

	"golang.org/x/crypto/xts"
)

// mostKeyslots is how many cryptsetup allows.
const mostKeyslots = 32

// keyslot holds the key, encrypted with a passphrase.
type keyslot struct {
	Type    string `json:"type"`
	KeySize int    `json:"key_size"`
	AF      split  `json:"af"`
	Area    area   `json:"area"`
	KDF     kdf    `json:"kdf"`
}

type area struct {
	Type       string `json:"type"`
	Offset     number `json:"offset"`
	Size       number `json:"size"`
	Encryption string `json:"encryption"`
	KeySize    int    `json:"key_size"`
}

type kdf struct {
	Type       string `json:"type"`
	Hash       string `json:"hash"`
	Iterations int    `json:"iterations"`
	Salt       []byte `json:"salt"`
}

// stripes are how many there always are.
const stripes = 4000

// areaSize is what a keyslot takes: a key of KeySize in its stripes, in whole blocks.
const areaSize = (KeySize*stripes + 4095) / 4096 * 4096

// Unlock returns the key of the data, and the keyslot that a passphrase opens. It fails with ErrPassphrase if there is none.
func (h *Header) Unlock(r io.ReaderAt, passphrase []byte) (key []byte, slot string, err error) {
	for _, id := range slices.Sorted(maps.Keys(h.meta.Keyslots)) {
		s, err := h.keyslot(id)
		if err != nil {
			continue // of another kind: not ours
		}
		key, err := s.open(r, passphrase)
		if err != nil {
			return nil, "", fmt.Errorf("keyslot %s: %w", id, err)
		}
		if h.meta.is(key) {
			return key, id, nil
		}
	}
	return nil, "", ErrPassphrase
}

// Add has a passphrase open the volume, too, and returns its keyslot. The area is written, the header is not: until Write it does not count.
func (h *Header) Add(d Device, key, passphrase []byte) (slot string, err error) {
	if !h.meta.is(key) {
		return "", errors.New("that is not the key of the volume")
	}
	at, err := h.room()
	if err != nil {
		return "", err
	}
	s := keyslot{
		Type: "luks2", KeySize: len(key), AF: split{"luks1", stripes, "sha256"},
		Area: area{"raw", number(at), areaSize, Cipher, KeySize}, KDF: kdf{"pbkdf2", "sha256", iterations, random(32)},
	}
	if err := s.seal(d, key, passphrase); err != nil {
		return "", err
	}
	if err := d.Sync(); err != nil {
		return "", err
	}
	for id := range mostKeyslots {
		slot = strconv.Itoa(id)
		if _, taken := h.meta.Keyslots[slot]; taken {
			continue
		}
		if h.meta.Keyslots[slot], err = json.Marshal(s); err != nil {
			return "", err
		}
		vouched := h.meta.Digests["0"]
		vouched.Keyslots = append(slices.Clone(vouched.Keyslots), slot)
		h.meta.Digests["0"] = vouched
		return slot, nil
	}
	return "", errors.New("every keyslot is taken")
}

// Remove forgets a keyslot and its token. What it returns makes its area unreadable: to be called once the header is written.
func (h *Header) Remove(slot string) (wipe func(Device) error) {
	var s keyslot
	err := json.Unmarshal(h.meta.Keyslots[slot], &s)
	delete(h.meta.Keyslots, slot)
	vouched := h.meta.Digests["0"]
	vouched.Keyslots = slices.DeleteFunc(slices.Clone(vouched.Keyslots), func(id string) bool { return id == slot })
	h.meta.Digests["0"] = vouched
	for id, raw := range h.meta.Tokens {
		if t, err := parseToken(raw); err == nil && slices.Contains(t.Keyslots, slot) {
			delete(h.meta.Tokens, id)
		}
	}
	return func(d Device) error {
		if err != nil || s.Area.Offset < areasAt || s.Area.Size > areaSize {
			return nil // what is not known is not overwritten
		}
		if _, err := d.WriteAt(random(int(s.Area.Size)), int64(s.Area.Offset)); err != nil {
			return err
		}
		return d.Sync()
	}
}

// keyslot returns one that can be opened here.
func (h *Header) keyslot(id string) (s keyslot, err error) {
	if err := json.Unmarshal(h.meta.Keyslots[id], &s); err != nil {
		return s, fmt.Errorf("keyslot %s: %w", id, err)
	}
	data, err := h.meta.segment()
	if err != nil {
		return s, err
	}
	switch {
	case s.Type != "luks2" || s.KDF.Type != "pbkdf2" || s.Area.Type != "raw" || s.AF.Type != "luks1":
		err = fmt.Errorf("keyslot %s: of kind %s, %s, %s, %s", id, s.Type, s.KDF.Type, s.Area.Type, s.AF.Type)
	case s.KeySize != KeySize || s.Area.KeySize != KeySize || s.Area.Encryption != Cipher || s.AF.Stripes != stripes || s.Area.Size < areaSize:
		err = fmt.Errorf("keyslot %s: %d bytes by %s in %d stripes", id, s.KeySize, s.Area.Encryption, s.AF.Stripes)
	case int64(s.Area.Offset) < 2*int64(h.fixed.Size) || s.Area.Offset > data.Offset-areaSize:
		err = fmt.Errorf("keyslot %s: at %d, which is not between header and data", id, s.Area.Offset)
	}
	return s, err
}

// room returns where there is room for one more.
func (h *Header) room() (int64, error) {
	var c config
	if err := json.Unmarshal(h.meta.Config, &c); err != nil {
		return 0, err
	}
	first := 2 * int64(h.fixed.Size)
	for at := first; at+areaSize <= first+int64(c.KeyslotsSize); at += areaSize {
		free := true
		for id, raw := range h.meta.Keyslots {
			var s keyslot
			if err := json.Unmarshal(raw, &s); err != nil {
				return 0, fmt.Errorf("keyslot %s: %w", id, err)
			}
			free = free && (at+areaSize <= int64(s.Area.Offset) || at >= int64(s.Area.Offset)+int64(s.Area.Size))
		}
		if free {
			return at, nil
		}
	}
	return 0, errors.New("there is no room for one more keyslot")
}

func (s *keyslot) cipher(passphrase []byte) (*xts.Cipher, error) {
	key, err := derive(s.KDF.Hash, passphrase, s.KDF.Salt, s.KDF.Iterations, s.Area.KeySize)
	if err != nil {
		return nil, err
	}
	return xts.NewCipher(aes.NewCipher, key)
}

// areaSector is the size of what is encrypted by itself in an area.
const areaSector = 512

// seal writes a key.
func (s *keyslot) seal(d Device, key, passphrase []byte) error {
	c, err := s.cipher(passphrase)
	if err != nil {
		return err
	}
	material, err := s.AF.split(key)
	if err != nil {
		return err
	}
	material = append(material, make([]byte, areaSize-len(material))...)
	for i, sector := range slices.Collect(slices.Chunk(material, areaSector)) {
		c.Encrypt(sector, bytes.Clone(sector), uint64(i))
	}
	_, err = d.WriteAt(material, int64(s.Area.Offset))
	return err
}

// open reads the key. With a wrong passphrase it is a wrong one.
func (s *keyslot) open(r io.ReaderAt, passphrase []byte) ([]byte, error) {
	c, err := s.cipher(passphrase)
	if err != nil {
		return nil, err
	}
	material := make([]byte, areaSize)
	if _, err := r.ReadAt(material, int64(s.Area.Offset)); err != nil {
		return nil, err
	}
	for i, sector := range slices.Collect(slices.Chunk(material, areaSector)) {
		c.Decrypt(sector, bytes.Clone(sector), uint64(i))
	}
	return s.AF.merge(material[:s.KeySize*stripes], s.KeySize)
}
