package dhcp

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Range is the addresses that a pool gives.
type Range struct{ First, Last netip.Addr }

// maxPool is how many addresses a pool has at most.
const maxPool = 1 << 16

// ParseRange reads "10.0.0.100-10.0.0.199", which have to lie in network.
func ParseRange(text string, network netip.Prefix) (Range, error) {
	from, to, ok := strings.Cut(text, "-")
	first, err := netip.ParseAddr(from)
	last, errLast := netip.ParseAddr(to)
	switch {
	case !ok || err != nil || errLast != nil:
		return Range{}, fmt.Errorf("%q is not two addresses with a hyphen between them", text)
	case !network.Contains(first) || !network.Contains(last):
		return Range{}, fmt.Errorf("%s: not in %s, the network of the interface", text, network.Masked())
	case last.Less(first):
		return Range{}, fmt.Errorf("%s: ends before it begins", text)
	}
	r := Range{first, last}
	if r.size() > maxPool {
		return Range{}, fmt.Errorf("%s: more than %d addresses", text, maxPool)
	}
	return r, nil
}

func (r Range) contains(a netip.Addr) bool { return r.First.Compare(a) <= 0 && a.Compare(r.Last) <= 0 }

func (r Range) size() int {
	number := func(a netip.Addr) int {
		b := a.As4()
		return int(b[0])<<24 | int(b[1])<<16 | int(b[2])<<8 | int(b[3])
	}
	return number(r.Last) - number(r.First) + 1
}

const (
	// leaseTime is how long an address is a client's; offerTime how long one is kept for a client that was offered it; badTime how long one is left
	// alone that somebody else was found to have.
	leaseTime = time.Hour
	offerTime = time.Minute
	badTime   = time.Hour
)

// lease is an address and whose it is. One without a client is nobody's to have.
type lease struct {
	Address netip.Addr `json:"address"`
	Until   time.Time  `json:"until"`
	Taken   bool       `json:"taken"` // not only offered
}

// pool gives addresses. What was taken is kept in a file: after a restart no address is given to a second client. It has one owner.
type pool struct {
	addresses Range
	own       netip.Addr // the server's, which is not given
	file      string
	now       func() time.Time
	clients   map[string]lease // by MAC address
	bad       map[netip.Addr]time.Time
}

// openPool reads what an earlier server has given.
func openPool(addresses Range, own netip.Addr, file string, now func() time.Time) (*pool, error) {
	p := &pool{addresses: addresses, own: own, file: file, now: now, clients: map[string]lease{}, bad: map[netip.Addr]time.Time{}}
	data, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return p, nil
	}
	if err == nil {
		err = json.Unmarshal(data, &p.clients)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	for mac, l := range p.clients {
		if _, err := net.ParseMAC(mac); err != nil || !addresses.contains(l.Address) {
			delete(p.clients, mac) // of another range
		}
	}
	return p, nil
}

// offer returns the address that a client may ask for: the one that it has or had, else the one that it wishes, else any that is free.
func (p *pool) offer(mac string, wish netip.Addr) (netip.Addr, bool) {
	held := p.holders()
	mine, had := p.clients[mac]
	address := mine.Address
	if !had || !p.free(mac, address, held) {
		address = wish
		if !p.free(mac, wish, held) {
			address = p.any(mac, held)
		}
	}
	if !address.IsValid() {
		return address, false
	}
	if !mine.Taken || mine.Address != address || p.now().After(mine.Until) {
		p.give(mac, lease{Address: address, Until: p.now().Add(offerTime)})
	}
	return address, true
}

// give notes what a client has, which nobody else had or will have again.
func (p *pool) give(mac string, l lease) {
	for other, had := range p.clients {
		if had.Address == l.Address {
			delete(p.clients, other)
		}
	}
	p.clients[mac] = l
}

// holders are the clients that have an address now, or are offered it.
func (p *pool) holders() map[netip.Addr]string {
	held := map[netip.Addr]string{}
	for mac, l := range p.clients {
		if p.now().Before(l.Until) {
			held[l.Address] = mac
		}
	}
	return held
}

func (p *pool) free(mac string, a netip.Addr, held map[netip.Addr]string) bool {
	holder, taken := held[a]
	return a.IsValid() && a != p.own && p.addresses.contains(a) && (!taken || holder == mac) && !p.now().Before(p.bad[a])
}

// any returns an address that nobody had, so that those who were away find theirs; else one that nobody has now.
func (p *pool) any(mac string, held map[netip.Addr]string) netip.Addr {
	had := map[netip.Addr]string{}
	for other, l := range p.clients {
		had[l.Address] = other
	}
	for a := p.addresses.First; a.Compare(p.addresses.Last) <= 0; a = a.Next() {
		if had[a] == "" && p.free(mac, a, held) {
			return a
		}
	}
	for a := p.addresses.First; a.Compare(p.addresses.Last) <= 0; a = a.Next() {
		if p.free(mac, a, held) {
			return a
		}
	}
	return netip.Addr{}
}

// take makes an address a client's, and reports whether it could be.
func (p *pool) take(mac string, a netip.Addr) (bool, error) {
	if !p.free(mac, a, p.holders()) {
		return false, nil
	}
	p.give(mac, lease{Address: a, Until: p.now().Add(leaseTime), Taken: true})
	return true, p.save()
}

// release ends what a client has. It will be offered the same again, if nobody needs it.
func (p *pool) release(mac string) {
	if l, ok := p.clients[mac]; ok {
		l.Until = p.now()
		p.clients[mac] = l
	}
}

// decline leaves an address alone for a while: the client has found it in use.
func (p *pool) decline(mac string, a netip.Addr) {
	if p.clients[mac].Address == a && a.IsValid() {
		delete(p.clients, mac)
		p.bad[a] = p.now().Add(badTime)
	}
}

// save writes what was taken. What is only offered may be forgotten.
func (p *pool) save() error {
	taken := map[string]lease{}
	for mac, l := range p.clients {
		if l.Taken {
			taken[mac] = l
		}
	}
	data, err := json.MarshalIndent(taken, "", " ")
	if err != nil {
		return err
	}
	temporary := filepath.Join(filepath.Dir(p.file), ".leases")
	if err := os.WriteFile(temporary, data, 0o600); err != nil {
		return err
	}
	return os.Rename(temporary, p.file)
}
