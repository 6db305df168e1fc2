// Package console writes what the screen and the serial line of a node show: at most ten lines from one snapshot, most important last,
// because what is above scrolls away.
package console

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	machinepb "github.com/cosi-os/cosi/api/cosi/machine/v1alpha1"
	"github.com/cosi-os/cosi/engine/runtime/node"
	"github.com/cosi-os/cosi/engine/runtime/storage"
)

const (
	// lines is how many there are at most.
	lines = 10
	// width is where a line is cut: messages may be anything, and on a VGA console of 80 columns this is three rows.
	width = 240
)

// Render returns the lines. It is a pure function: the same snapshot gives the same lines.
func Render(s *node.Snapshot) []string {
	head := []string{strings.TrimSpace(fmt.Sprintf("COSI %s  node %s  kernel %s", or(s.Version, "unknown version"), or(s.Name(), "without a name"), s.Hello.Kernel))}
	foot := slices.Concat(kept(s), api(s), []string{ready(s)})
	room := lines - len(head) - len(foot)
	links, data := links(s), userData(s)
	// Each gets what the other leaves, half at least.
	links = cut(links, max(room/2, room-len(data)), "links")
	data = cut(data, room-len(links), "sources")
	var all []string
	for _, part := range [][]string{head, links, data, foot} {
		all = append(all, part...)
	}
	for i := range all {
		all[i] = clean(all[i])
	}
	return all
}

// links shows one line a link: MAC, carrier, addresses and where they come from. Those that somebody waits for come first, then those with a
// cable: there may be more than room.
func links(s *node.Snapshot) []string {
	var missing, connected, others []string
	for _, l := range s.Links {
		if l.Spec.GetKind() == "loopback" {
			continue
		}
		if l.Spec.GetName() == "" { // asked for, and not there yet
			missing = append(missing, fmt.Sprintf("link %s  %s", l.GetId(), l.Spec.GetMessage()))
			continue
		}
		carrier, to := "no carrier", &others
		if l.Spec.GetCarrier() {
			carrier, to = "carrier", &connected
		}
		line := fmt.Sprintf("link %s  %s  %s", l.Spec.GetName(), l.Spec.GetMac(), carrier)
		if addresses := addresses(s, l.Spec.GetName()); addresses != "" {
			line += "  " + addresses
		} else if l.Spec.GetCarrier() {
			line += "  no address" + lease(s)
		}
		*to = append(*to, line)
	}
	out := slices.Concat(missing, connected, others)
	if len(out) == 0 {
		return []string{"link none found: is there a network card, and a driver for it?"}
	}
	return out
}

func addresses(s *node.Snapshot, link string) string {
	var out []string
	for _, a := range s.Addresses {
		p, err := netip.ParsePrefix(a.Spec.GetAddress())
		if a.Spec.GetReady() && a.Spec.GetLinkName() == link && err == nil && !p.Addr().IsLinkLocalUnicast() {
			out = append(out, fmt.Sprintf("%s (%s)", p, a.Spec.GetSource()))
		}
	}
	return strings.Join(out, "  ")
}

func lease(s *node.Snapshot) string {
	for _, d := range s.DHCP {
		if !d.Spec.GetReady() && d.Spec.GetMessage() != "" {
			return ": DHCP " + d.Spec.GetMessage()
		}
	}
	return ""
}

// userData shows one line a source that there was, for a bad one with its first problem, and one line for all others that were looked
// for: there may be more of them than room, so what a person should know comes first.
func userData(s *node.Snapshot) []string {
	var bad, good, image, absent []string
	for _, u := range s.UserData {
		line := "user data " + u.GetId() + ": " + source(u.Spec)
		switch {
		case u.GetId() == node.UserDataSum:
		case u.Spec.GetState() == "Absent":
			absent = append(absent, fmt.Sprintf("%s (%s)", u.GetId(), u.Spec.GetMessage()))
		case u.Spec.GetState() != "Applied" || u.Spec.GetUnauthenticated():
			bad = append(bad, line)
		case u.Spec.GetSource() == "image":
			image = append(image, line)
		default:
			good = append(good, line)
		}
	}
	out := slices.Concat(bad, good, image)
	if len(absent) > 0 {
		out = append(out, "user data absent: "+strings.Join(absent, ", "))
	}
	if len(out) == 0 {
		return []string{"user data none"}
	}
	return out
}

// source says what came of a source.
func source(u *machinepb.UserDataSource) string {
	line := u.GetState()
	if u.GetDocuments() > 0 {
		line += fmt.Sprintf(", %d of %d documents", u.GetApplied(), u.GetDocuments())
	}
	if u.GetUnauthenticated() {
		line += ", unauthenticated"
	}
	// Of documents, their number and the problems say it all.
	if m := u.GetMessage(); m != "" && u.GetDocuments() == 0 {
		line += ": " + m
	}
	if problems := u.GetProblems(); len(problems) > 0 {
		p := problems[0]
		line += fmt.Sprintf(": line %d: %s", p.GetLine(), strings.TrimPrefix(p.GetField()+": "+p.GetMessage(), ": "))
		if more := len(problems) - 1; more > 0 {
			line += fmt.Sprintf(" (and %d more)", more)
		}
	}
	if next := u.GetNextTry(); next != nil {
		line += ", next try " + clock(next.AsTime())
	}
	return line
}

// kept shows where configuration is kept.
func kept(s *node.Snapshot) []string {
	switch k := s.Storage; {
	case k == nil:
		return nil
	case k.GetDurable() && k.GetMessage() != "":
		return []string{"state kept on " + or(k.GetDevice(), "disk") + ", of another image: " + k.GetMessage()}
	case k.GetDurable():
		return []string{"state kept on " + or(k.GetDevice(), "disk")}
	case k.GetReason() == storage.ReasonDamaged:
		return []string{"state damaged: " + k.GetMessage()}
	case k.GetReason() == storage.ReasonLocked:
		return []string{"state locked, a VolumeUnlock with the recovery key opens it: " + k.GetMessage()}
	case k.GetFrozen():
		return []string{"state cannot be used: " + or(k.GetMessage(), k.GetReason())}
	default:
		return []string{"state in memory: " + or(k.GetMessage(), k.GetReason())}
	}
}

// api shows how the node can be reached and by what it is known.
func api(s *node.Snapshot) []string {
	var out []string
	if f := s.Certificates.GetFingerprint(); f != "" {
		out = append(out, "fingerprint SHA-256 "+f)
	}
	switch {
	case s.Listening:
		out = append(out, fmt.Sprintf("API on port %d", s.Port))
	case s.Hello.PID1:
		out = append(out, fmt.Sprintf("API off: port %d is closed until user data brings a client CA (cosictl gen makes one)", s.Port))
	}
	if s.Refusal != "" {
		out = append(out, s.Refusal)
	}
	return out
}

func ready(s *node.Snapshot) string {
	r := s.Readiness()
	if r.Ready {
		return "ready"
	}
	line := "not ready because " + or(r.Message, r.Reason)
	if !r.Next.IsZero() {
		line += ", next try " + clock(r.Next)
	}
	return line
}

// cut leaves n lines and says how many more there were.
func cut(all []string, n int, what string) []string {
	if len(all) <= n {
		return all
	}
	return append(all[:n-1:n-1], fmt.Sprintf("... and %d more %s", len(all)-n+1, what))
}

// clean keeps a message from moving the cursor or spilling over.
func clean(line string) string {
	runes := []rune(strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 {
			return ' '
		}
		return r
	}, line))
	if len(runes) > width {
		runes = append(runes[:width-3], []rune("...")...)
	}
	return string(runes)
}

func clock(t time.Time) string { return t.UTC().Format("15:04:05 UTC") }

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}
