package memory

import (
	"maps"
	"slices"

	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
)

// maxIndexed is how many label keys of a kind are indexed at most: callers name them.
const maxIndexed = 32

// index finds the entries of a kind by their labels. A key is indexed when it is first asked for, so that kinds that nobody asks by label
// cost nothing; from then on it follows every write.
type index map[string]values

// values are the entries that have a label, by its value.
type values map[string]map[*entry]bool

// follow takes in that the resource of e was before and is after; either may be nil.
func (x index) follow(e *entry, before, after *resourcepb.Resource) {
	for key, v := range x {
		old, had := before.GetMetadata().GetLabels()[key]
		now, has := after.GetMetadata().GetLabels()[key]
		if had == has && old == now {
			continue
		}
		if had {
			v.remove(old, e)
		}
		if has {
			v.add(now, e)
		}
	}
}

func (v values) add(value string, e *entry) {
	if v[value] == nil {
		v[value] = map[*entry]bool{}
	}
	v[value][e] = true
}

func (v values) remove(value string, e *entry) {
	delete(v[value], e)
	if len(v[value]) == 0 {
		delete(v, value)
	}
}

// indexable reports whether t holds only for resources that have its key, with one of a few values if it names any.
func indexable(t *resourcepb.LabelTerm) bool {
	switch t.GetOp() {
	case resourcepb.LabelTerm_EXISTS, resourcepb.LabelTerm_EQUAL, resourcepb.LabelTerm_IN:
		return !t.GetInvert()
	}
	return false
}

// wanted returns the keys that queries can be answered by, nil if they cannot: each query needs one.
func wanted(queries []*resourcepb.LabelQuery) []string {
	var keys []string
	for _, q := range queries {
		found := false
		for _, t := range q.GetTerms() {
			if indexable(t) {
				keys, found = append(keys, t.GetKey()), true
			}
		}
		if !found {
			return nil
		}
	}
	return keys
}

// has reports whether all keys are indexed.
func (x index) has(keys []string) bool {
	return !slices.ContainsFunc(keys, func(key string) bool { return x[key] == nil })
}

// cover indexes the keys, as far as there is room.
func (x index) cover(keys []string, byID map[string]*entry) bool {
	for _, key := range keys {
		if x[key] != nil {
			continue
		}
		if len(x) == maxIndexed {
			return false
		}
		v := values{}
		for _, e := range byID {
			if value, has := e.Label(key); has {
				v.add(value, e)
			}
		}
		x[key] = v
	}
	return true
}

// candidates returns entries, each once and by id, among which are all that one of the queries selects. Every query has an indexed key.
func (x index) candidates(queries []*resourcepb.LabelQuery) []*entry {
	var all []*entry
	for _, q := range queries {
		for _, s := range x.fewest(q) {
			all = slices.AppendSeq(slices.Grow(all, len(s)), maps.Keys(s))
		}
	}
	slices.SortFunc(all, byID)
	return slices.Compact(all)
}

// fewest returns the sets of entries of the term of q that the fewest have.
func (x index) fewest(q *resourcepb.LabelQuery) (best []map[*entry]bool) {
	least := -1
	for _, t := range q.GetTerms() {
		if !indexable(t) {
			continue
		}
		sets := x.of(t)
		n := 0
		for _, s := range sets {
			n += len(s)
		}
		if least < 0 || n < least {
			best, least = sets, n
		}
	}
	return best
}

// of returns the sets of entries for which t may hold.
func (x index) of(t *resourcepb.LabelTerm) []map[*entry]bool {
	var sets []map[*entry]bool
	if t.GetOp() == resourcepb.LabelTerm_EXISTS {
		for _, s := range x[t.GetKey()] {
			sets = append(sets, s)
		}
		return sets
	}
	for _, value := range t.GetValue() {
		if s := x[t.GetKey()][value]; s != nil {
			sets = append(sets, s)
		}
	}
	return sets
}
