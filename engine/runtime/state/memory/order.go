package memory

import (
	"slices"
	"strings"

	"github.com/cosi-os/cosi/engine/runtime/state/encoded"
)

// order keeps entries by id for those who list them. A write costs the same however many there are: what is added waits to be sorted in
// until somebody lists, what is removed stays as a gap until then.
type order struct {
	sorted []*entry // by id, with gaps: entries without a resource
	added  []*entry // in no order, with gaps
	gaps   int
}

func (o *order) add(e *entry) { o.added = append(o.added, e) }

// remove notes that an entry has lost its resource. Gaps never outnumber what is there by much, or nobody who lists would free them.
func (o *order) remove() {
	o.gaps++
	if o.gaps > 64 && o.gaps > (len(o.sorted)+len(o.added))/2 {
		o.settle()
	}
}

// settled reports whether there is nothing to sort in and no gap.
func (o *order) settled() bool { return len(o.added) == 0 && o.gaps == 0 }

// settle sorts in what was added and closes the gaps.
func (o *order) settle() {
	gone := func(e *entry) bool { return e.IsGone() }
	o.sorted = slices.DeleteFunc(o.sorted, gone)
	o.added = slices.DeleteFunc(o.added, gone)
	slices.SortFunc(o.added, byID)
	o.sorted = merge(o.sorted, o.added)
	o.added, o.gaps = nil, 0
}

func byID(a, b *entry) int { return strings.Compare(a.ID(), b.ID()) }

// merge returns the entries of two sorted lists in one. It may use the memory of the first.
func merge(into, from []*entry) []*entry {
	if len(from) == 0 {
		return into
	}
	i, j := len(into)-1, len(from)-1
	into = append(into, from...)
	for k := len(into) - 1; j >= 0; k-- {
		if i >= 0 && byID(into[i], from[j]) > 0 {
			into[k], i = into[i], i-1
		} else {
			into[k], j = from[j], j-1
		}
	}
	return into
}

// kept returns the resources of entries, in their order, as they are kept.
func kept(entries []*entry) []encoded.Resource {
	all := make([]encoded.Resource, len(entries))
	for i, e := range entries {
		all[i] = e.Resource
	}
	return all
}
