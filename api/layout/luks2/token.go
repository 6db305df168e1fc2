package luks2

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
)

// token is what every token has.
type token struct {
	Type     string   `json:"type"`
	Keyslots []string `json:"keyslots"`
}

func parseToken(raw json.RawMessage) (t token, err error) {
	return t, json.Unmarshal(raw, &t)
}

// Tokens returns those of a type, in the order of their numbers.
func (h *Header) Tokens(kind string) (all []json.RawMessage) {
	for _, id := range slices.Sorted(maps.Keys(h.meta.Tokens)) {
		if t, err := parseToken(h.meta.Tokens[id]); err == nil && t.Type == kind {
			all = append(all, h.meta.Tokens[id])
		}
	}
	return all
}

// AddToken adds one: an object with a type and the keyslots that it is about. Until Write it does not count.
func (h *Header) AddToken(object any) error {
	raw, err := json.Marshal(object)
	if err != nil {
		return err
	}
	t, err := parseToken(raw)
	if err != nil {
		return err
	}
	for _, slot := range t.Keyslots {
		if _, ok := h.meta.Keyslots[slot]; !ok {
			return fmt.Errorf("token %s: there is no keyslot %s", t.Type, slot)
		}
	}
	for id := range mostKeyslots {
		if _, taken := h.meta.Tokens[strconv.Itoa(id)]; !taken {
			h.meta.Tokens[strconv.Itoa(id)] = raw
			return nil
		}
	}
	return fmt.Errorf("token %s: there is no room", t.Type)
}
