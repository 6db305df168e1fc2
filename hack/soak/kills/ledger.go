package kills

import (
	"fmt"
	"math"
	"os"

	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	"github.com/cosi-os/cosi/hack/blklog"
)

// ledger is what a writer has done, and how far the record of the disk was at each step. A nil one takes nothing.
type ledger struct {
	log     *os.File // that QEMU writes
	entries []entry
}

// entry is a call. All that its answer relies on is in the first acknowledged entries of the record, and nothing that it caused is in the first
// sent ones.
type entry struct {
	*attempt
	after              *resourcepb.Resource // nil: destroyed, or never answered
	sent, acknowledged uint64
}

// never is later than all that was recorded.
const never = math.MaxUint64

func (l *ledger) sent(try *attempt) error {
	if l == nil {
		return nil
	}
	n, err := blklog.Count(l.log)
	l.entries = append(l.entries, entry{attempt: try, sent: n, acknowledged: never})
	return err
}

func (l *ledger) answered(after *resourcepb.Resource) error {
	if l == nil {
		return nil
	}
	e := &l.entries[len(l.entries)-1]
	var err error
	e.after = after
	if e.acknowledged, err = blklog.Count(l.log); err != nil {
		return fmt.Errorf("the record of the disk: %w", err)
	}
	return nil
}

// at returns what w knew when the record had n entries: what was acknowledged by then, and the one call that may have been on its way.
func (w *writer) at(n uint64) *writer {
	then := &writer{namespace: w.namespace, typ: w.typ, ids: w.ids, known: map[string]*resourcepb.Resource{}}
	for _, e := range w.ledger.entries {
		if e.acknowledged > n {
			if e.sent <= n {
				then.last = e.attempt
			}
			break
		}
		then.acknowledged++
		then.know(e.id, e.after)
	}
	return then
}
