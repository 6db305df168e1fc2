package audit

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

// add takes up e, the newest, and returns the ids of those that must go: the oldest of its identity, and when all together are too many
// the oldest of the identity that has most. e stays.
func (k *kept) add(e entry) []string {
	own := k.of[e.of]
	if own == nil {
		own = &entries{}
		k.of[e.of] = own
	}
	own.list = append(own.list, e)
	own.bytes += e.bytes
	k.sum.Records++
	k.sum.Bytes += e.bytes
	var gone []string
	for len(own.list) > 1 && (len(own.list) > k.identity.Records || own.bytes > k.identity.Bytes) {
		gone = append(gone, k.drop(e.of))
	}
	for k.sum.Records > 1 && (k.sum.Records > k.all.Records || k.sum.Bytes > k.all.Bytes) {
		gone = append(gone, k.drop(k.most(e)))
	}
	return gone
}

func (k *kept) drop(identity string) string {
	own := k.of[identity]
	oldest := own.list[0]
	own.list = own.list[1:]
	own.bytes -= oldest.bytes
	if len(own.list) == 0 {
		delete(k.of, identity)
	}
	k.sum.Records--
	k.sum.Bytes -= oldest.bytes
	return oldest.id
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
