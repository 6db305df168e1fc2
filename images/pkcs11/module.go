//go:build pkcs11

package pkcs11

import (
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	p11 "github.com/miekg/pkcs11"
)

// module is a loaded one, with a key in it open.
type module struct {
	*p11.Ctx
	path string
	keys int
}

// modules are those that are loaded, by their paths. There is one such table in a process because a process initialises a module once (C_Initialize).
var modules = struct {
	sync.Mutex
	loaded map[string]*module
}{loaded: map[string]*module{}}

// load loads the module in a file for one more key.
func load(file string) (*module, error) {
	path, err := filepath.EvalSymlinks(file) // says what is wrong with the file, which p11 does not
	if err != nil {
		return nil, err
	}
	modules.Lock()
	defer modules.Unlock()
	m := modules.loaded[path]
	if m == nil {
		m = &module{Ctx: p11.New(path), path: path}
		if m.Ctx == nil {
			return nil, fmt.Errorf("%s is no PKCS #11 module that this machine can load", path)
		}
		if err := m.Initialize(); err != nil {
			m.Destroy()
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		modules.loaded[path] = m
	}
	m.keys++
	return m, nil
}

// release unloads the module after its last key.
func (m *module) release() error {
	modules.Lock()
	defer modules.Unlock()
	if m.keys--; m.keys > 0 {
		return nil
	}
	delete(modules.loaded, m.path)
	err := m.Finalize()
	m.Destroy()
	return err
}

// token finds the token that u names, and its slot. An empty one is none.
func (m *module) token(u *URI) (slot uint, token p11.TokenInfo, err error) {
	slots, err := m.GetSlotList(true)
	if err != nil {
		return 0, token, err
	}
	var there []string
	found := 0
	for _, s := range slots {
		t, err := m.GetTokenInfo(s)
		if err != nil {
			return 0, token, fmt.Errorf("slot %d: %w", s, err)
		}
		if t.Flags&p11.CKF_TOKEN_INITIALIZED == 0 {
			continue
		}
		there = append(there, fmt.Sprintf("%q with serial %q", t.Label, t.SerialNumber))
		if u.names(s, t) {
			slot, token = s, t
			found++
		}
	}
	switch {
	case len(there) == 0:
		return 0, token, errors.New("no token is there")
	case found == 0:
		return 0, token, fmt.Errorf("no such token is there: %s", strings.Join(there, ", "))
	case found > 1:
		return 0, token, fmt.Errorf("this is more than one token, say which by serial: %s", strings.Join(there, ", "))
	}
	return slot, token, nil
}

// names reports whether a token in a slot is the one that u names.
func (u *URI) names(slot uint, t p11.TokenInfo) bool {
	is := map[string]string{"token": t.Label, "manufacturer": t.ManufacturerID, "model": t.Model, "serial": t.SerialNumber, "slot-id": strconv.FormatUint(uint64(slot), 10)}
	for _, name := range ofToken {
		if want, said := u.key[name]; said && want != is[name] {
			return false
		}
	}
	return true
}
