package boot

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"sync"
	"time"
)

const (
	// ticketTime is how long after a machine was told of its user data it may ask for it.
	ticketTime = time.Hour
	// maxTickets is how many machines may have one: the oldest makes room.
	maxTickets = 4096
)

// ticket lets a machine have its user data: it is in the URL, which is told only to that machine.
type ticket struct {
	secret, mac string
	file        string // as it was, by its digest, when the machine was told of it
	digest      string
	until       time.Time
}

// tickets are those of the machines that boot now. They are safe for concurrent use.
type tickets struct {
	now func() time.Time

	mu  sync.Mutex // guards all
	all map[string]ticket
}

// get returns a machine's ticket for what is in a file: the same until half its time is over, as firmware asks twice for what it boots, first how long it is.
func (t *tickets) get(mac, file string, data []byte) ticket {
	t.mu.Lock()
	defer t.mu.Unlock()
	var oldest string
	for secret, old := range t.all {
		if old.mac == mac && old.file == file && old.digest == digest(data) && old.until.Sub(t.now()) > ticketTime/2 {
			return old
		}
		if old.mac == mac || t.now().After(old.until) {
			delete(t.all, secret)
			continue
		}
		if oldest == "" || old.until.Before(t.all[oldest].until) {
			oldest = secret
		}
	}
	if len(t.all) >= maxTickets {
		delete(t.all, oldest)
	}
	if t.all == nil {
		t.all = map[string]ticket{}
	}
	one := ticket{secret: rand.Text(), mac: mac, file: file, digest: digest(data), until: t.now().Add(ticketTime)}
	t.all[one.secret] = one
	return one
}

// find returns the ticket with a secret, while it counts.
func (t *tickets) find(secret string) (ticket, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	one, ok := t.all[secret]
	return one, ok && t.now().Before(one.until)
}

func digest(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}
