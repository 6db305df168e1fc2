package audit

import (
	"slices"
	"strings"
)

// entry is a record that is kept.
type entry struct {
	id    string
	bytes int
	of    string // identity
}

// kept knows which records there are, and which must go for a new one.
type kept struct {
	identity, all Bounds
	of            map[string]*entries // by identity
	sum           Bounds              // what there is of all
}

// entries are the records of an identity, the oldest first.
type entries struct {
	list  []entry
	bytes int
}

func newKept(identity, all Bounds) *kept {
	return &kept{identity: identity, all: all, of: map[string]*entries{}}
}

// add takes up e, the newest, and returns those that must go: the oldest of its identity, and when all together are too many the oldest of
// the identity that has most. e stays.
func (k *kept) add(e entry) []entry {
	k.put(e)
	own := k.of[e.of]
	var gone []entry
	for len(own.list) > 1 && (len(own.list) > k.identity.Records || own.bytes > k.identity.Bytes) {
		gone = append(gone, k.drop(own.list[0]))
	}
	for k.sum.Records > 1 && (k.sum.Records > k.all.Records || k.sum.Bytes > k.all.Bytes) {
		gone = append(gone, k.drop(k.of[k.most(e)].list[0]))
	}
	return gone
}

// undo takes back an add that has returned gone, whatever was added since. What is too many then goes with the next. Of two that failed, the
// second may bring back the entry of the first: it goes as if there were a record.
func (k *kept) undo(e entry, gone []entry) {
	if own := k.of[e.of]; own != nil && slices.Contains(own.list, e) { // a later one may have dropped it
		k.drop(e)
	}
	for _, old := range gone {
		k.put(old)
	}
}

// put puts an entry in its place: ids are numbers of one length.
func (k *kept) put(e entry) {
	own := k.of[e.of]
	if own == nil {
		own = &entries{}
		k.of[e.of] = own
	}
	at, _ := slices.BinarySearchFunc(own.list, e, byID)
	own.list = slices.Insert(own.list, at, e)
	own.bytes += e.bytes
	k.sum.Records++
	k.sum.Bytes += e.bytes
}

func byID(a, b entry) int { return strings.Compare(a.id, b.id) }

func (k *kept) drop(e entry) entry {
	own := k.of[e.of]
	at, _ := slices.BinarySearchFunc(own.list, e, byID)
	own.list = slices.Delete(own.list, at, at+1)
	own.bytes -= e.bytes
	if len(own.list) == 0 {
		delete(k.of, e.of)
	}
	k.sum.Records--
	k.sum.Bytes -= e.bytes
	return e
}

// most returns the identity with most records besides e, the first by name among equals.
func (k *kept) most(e entry) string {
	most, records := "", 0
	for identity, own := range k.of {
		n := len(own.list)
		if identity == e.of {
			n--
		}
		if n > records || n == records && n > 0 && identity < most {
			most, records = identity, n
		}
	}
	return most
}
