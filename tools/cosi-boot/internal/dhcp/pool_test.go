package dhcp

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestRanges(t *testing.T) {
	network := netip.MustParsePrefix("10.0.0.1/16")
	for text, want := range map[string]string{
		"10.0.0.5-10.0.0.5": "", "10.0.0.0-10.0.255.255": "", "10.0.0.5": "hyphen", "10.0.0.5-": "hyphen", "10.0.0.5-::1": "not in 10.0.0.0/16",
		"10.1.0.1-10.1.0.2": "not in 10.0.0.0/16", "10.0.0.9-10.0.0.5": "ends before it begins",
	} {
		_, err := ParseRange(text, network)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("ParseRange(%s) = %v; want %q", text, err, want)
		}
	}
	if _, err := ParseRange("10.0.0.0-10.255.255.255", netip.MustParsePrefix("10.0.0.1/8")); err == nil {
		t.Error("a range of 16 million addresses is taken")
	}
}

// pooled is a pool of 192.0.2.1 (the server's own) to .4, with a clock.
func pooled(t *testing.T) (*pool, *time.Time) {
	t.Helper()
	now := time.Unix(1_000_000, 0)
	r := Range{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.4")}
	p, err := openPool(r, r.First, filepath.Join(t.TempDir(), "leases.json"), func() time.Time { return now })
	if err != nil {
		t.Fatal(err)
	}
	return p, &now
}

func (p *pool) mustTake(t *testing.T, mac string) string {
	t.Helper()
	a, ok := p.offer(mac, netip.Addr{})
	if !ok {
		return "none"
	}
	if ok, err := p.take(mac, a); !ok || err != nil {
		t.Fatalf("%s cannot take %s, which it was offered: %v", mac, a, err)
	}
	return a.String()
}

func TestAnAddressIsOneClients(t *testing.T) {
	p, now := pooled(t)
	for i, want := range []string{"192.0.2.2", "192.0.2.3", "192.0.2.4", "none"} {
		if got := p.mustTake(t, fmt.Sprintf("52:54:00:00:00:%02x", i)); got != want {
			t.Errorf("client %d has %s; want %s", i, got, want)
		}
	}
	if ok, _ := p.take("52:54:00:00:00:03", netip.MustParseAddr("192.0.2.2")); ok {
		t.Error("another's address is given")
	}
	for _, outside := range []string{"192.0.2.1", "192.0.2.5", "::1"} {
		if ok, _ := p.take("52:54:00:00:00:03", netip.MustParseAddr(outside)); ok {
			t.Errorf("%s is given", outside)
		}
	}
	*now = now.Add(leaseTime + time.Second)
	if got := p.mustTake(t, "52:54:00:00:00:03"); got != "192.0.2.2" {
		t.Errorf("when all leases are over, a new client has %s", got)
	}
	if got := p.mustTake(t, "52:54:00:00:00:01"); got != "192.0.2.3" {
		t.Errorf("one that was away has %s; want its own", got)
	}
	if got := p.mustTake(t, "52:54:00:00:00:00"); got != "192.0.2.4" {
		t.Errorf("one whose address is gone has %s", got)
	}
	if len(p.clients) != 3 {
		t.Errorf("3 addresses have %d clients: %v", len(p.clients), p.clients)
	}
}

func TestWhatIsOfferedIsKeptForAMinute(t *testing.T) {
	p, now := pooled(t)
	wish := netip.MustParseAddr("192.0.2.4")
	if a, _ := p.offer("a", wish); a != wish {
		t.Errorf("offered %s; wished %s", a, wish)
	}
	if a, _ := p.offer("b", wish); a == wish {
		t.Errorf("%s is offered to two", a)
	}
	*now = now.Add(offerTime + time.Second)
	if a, _ := p.offer("c", wish); a != wish {
		t.Errorf("after a minute %s is not free", wish)
	}
}

func TestAnAddressInUseIsLeftAlone(t *testing.T) {
	p, now := pooled(t)
	p.mustTake(t, "a")
	p.decline("b", netip.MustParseAddr("192.0.2.2")) // not its own
	if a, _ := p.offer("a", netip.Addr{}); a.String() != "192.0.2.2" {
		t.Errorf("a is offered %s", a)
	}
	p.decline("a", netip.MustParseAddr("192.0.2.2"))
	if got := p.mustTake(t, "a"); got != "192.0.2.3" {
		t.Errorf("a has %s; want one that nobody has declined", got)
	}
	*now = now.Add(2 * badTime)
	p.mustTake(t, "b")
	if got := p.clients["b"].Address.String(); got != "192.0.2.2" {
		t.Errorf("b has %s", got)
	}
}

func TestLeasesOutliveTheServer(t *testing.T) {
	p, _ := pooled(t)
	const one, other = "52:54:00:00:00:01", "52:54:00:00:00:02"
	p.mustTake(t, one)
	p.offer("52:54:00:00:00:03", netip.Addr{})
	again, err := openPool(p.addresses, p.own, p.file, p.now)
	if err != nil || len(again.clients) != 1 {
		t.Fatalf("openPool: %v, %v", again, err)
	}
	if got := again.mustTake(t, other); got != "192.0.2.3" {
		t.Errorf("another client has %s", got)
	}
	if got := again.mustTake(t, one); got != "192.0.2.2" {
		t.Errorf("the client has %s", got)
	}
	if err := os.WriteFile(p.file, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := openPool(p.addresses, p.own, p.file, p.now); err == nil || !strings.Contains(err.Error(), p.file) {
		t.Errorf("a broken file: %v", err)
	}
}
