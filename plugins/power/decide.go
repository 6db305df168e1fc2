package power

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	powerpb "github.com/cosi-os/cosi/api/cosi/power/v1alpha1"
)

// usual is the limit, and the lease, of an inhibitor that names none; and what all together may delay a critical request.
const usual = 30 * time.Second

// Reasons of an inhibitor's status.
const (
	reasonHeld       = "Held"
	reasonExpired    = "Expired"
	reasonHolderGone = "HolderGone"
	reasonLetGo      = "LetGo"
)

// hold is what an inhibitor holds, or why it does not.
type hold struct {
	id, holder, reason string
	mode               powerpb.ShutdownInhibitor_Mode
	limit              time.Duration
	expires            time.Time // zero for a plugin's: its end is an event of its own
	state              string    // Held, and what it was that ended it
}

// holdOf returns what i holds. written is when it was seen first as it is now; ready says that the plugin that owns it is.
func holdOf(i inhibitor, written time.Time, ready bool, now time.Time) hold {
	h := hold{
		id: i.GetId(), holder: i.GetOwner(), reason: i.Spec.GetReason(), mode: i.Spec.GetMode(), limit: orUsual(i.Spec.GetLimit()), state: reasonHeld,
	}
	if h.holder == "" {
		h.holder, h.expires = cmp.Or(i.Spec.GetHolder(), h.id), written.Add(orUsual(i.Spec.GetLease()))
	}
	switch {
	case i.TearingDown():
		h.state = reasonLetGo
	case i.GetOwner() != "" && !ready:
		h.state = reasonHolderGone
	case i.GetOwner() == "" && !now.Before(h.expires):
		h.state = reasonExpired
	}
	return h
}

func orUsual(d *durationpb.Duration) time.Duration {
	if d == nil {
		return usual
	}
	return d.AsDuration()
}

// verdict is what becomes of a request.
type verdict struct {
	reason  string // Draining: nothing is in its way
	holders []*powerpb.ShutdownStatus_Holder
	until   time.Time // when it goes on at the latest
	next    time.Time // when the first of them is waited for no longer
}

// decide finds out what becomes of a request that was seen first at since.
func decide(r *powerpb.ShutdownRequest, since time.Time, all []hold, now time.Time) verdict {
	var waiting, refusing verdict
	for _, h := range all {
		if h.state != reasonHeld {
			continue
		}
		limit := h.limit
		if r.GetCritical() {
			limit = min(limit, usual)
		}
		end := since.Add(limit)
		switch {
		case h.mode == powerpb.ShutdownInhibitor_BLOCK && !r.GetCritical():
			if !r.GetForce() {
				refusing.add(h, time.Time{})
			}
		case now.Before(end) && (h.mode == powerpb.ShutdownInhibitor_DELAY || !r.GetForce()):
			waiting.add(h, end)
		}
	}
	switch {
	case len(refusing.holders) > 0:
		refusing.reason = reasonRefused
		return refusing
	case len(waiting.holders) > 0:
		waiting.reason = reasonWaiting
		return waiting
	}
	return verdict{reason: reasonDraining}
}

func (v *verdict) add(h hold, end time.Time) {
	v.holders = append(v.holders, &powerpb.ShutdownStatus_Holder{
		Inhibitor: h.id, Holder: h.holder, Reason: h.reason, Mode: h.mode, Until: timestamp(end),
	})
	if end.After(v.until) {
		v.until = end
	}
	v.next = earliest(v.next, end)
}

// words says who is in the way: ", refused by etcd-guard (two voters are left)".
func (v verdict) words() string {
	var names []string
	for _, h := range v.holders {
		names = append(names, fmt.Sprintf("%s (%s)", h.GetHolder(), h.GetReason()))
	}
	what := "waits for"
	if v.reason == reasonRefused {
		what = "refused by"
	}
	return "; " + what + " " + strings.Join(names, ", ")
}

// earliest returns the earlier of two times; zero is none.
func earliest(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}
