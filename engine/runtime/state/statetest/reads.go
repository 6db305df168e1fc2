package statetest

import (
	"fmt"

	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	"github.com/cosi-os/cosi/engine/runtime/state"
)

var reading = []Rule{
	{Name: "Get of nothing is not found", check: func(f *fixture) {
		_, err := f.Get(f.ctx, pointer("a"))
		f.fails("Get", err, state.ErrNotFound)
		f.create(thing("a"))
		_, err = f.Get(f.ctx, pointer("b"))
		f.fails("Get", err, state.ErrNotFound)
	}},
	{Name: "Kinds do not see each other", check: func(f *fixture) {
		f.create(thing("a"))
		_, err := f.Get(f.ctx, state.Pointer{Kind: otherKind, ID: "a"})
		f.fails("Get", err, state.ErrNotFound)
		f.create(edited(thing("a"), func(m *resourcepb.Metadata) { m.Type = otherKind.Type }))
		f.equal("List", f.ids(state.Query{}), "a")
	}},
	{Name: "List of a kind that holds nothing is empty", check: func(f *fixture) {
		f.equal("List", f.ids(state.Query{}), "")
	}},
	{Name: "List is sorted by id", check: func(f *fixture) {
		for _, id := range []string{"m", "b", "z", "a", "aa", "B", "10", "9"} {
			f.create(thing(id))
		}
		f.destroy("m")
		f.create(thing("c"))
		f.equal("List", f.ids(state.Query{}), "10 9 B a aa b c z")
	}},
	{Name: "List shows resources as they are", check: func(f *fixture) {
		f.update(f.create(thing("a")))
		all, err := f.List(f.ctx, kind, state.Query{})
		f.fails("List", err, nil)
		if len(all) != 1 || all[0].Message().GetMetadata().GetVersion() != "2" {
			f.Errorf("List = %v; want a at version 2", all)
		}
	}},
}

// labels is a query of terms that must all hold.
func labels(terms ...*resourcepb.LabelTerm) *resourcepb.LabelQuery {
	return &resourcepb.LabelQuery{Terms: terms}
}

func term(key string, op resourcepb.LabelTerm_Operation, values ...string) *resourcepb.LabelTerm {
	return &resourcepb.LabelTerm{Key: key, Op: op, Value: values}
}

func not(t *resourcepb.LabelTerm) *resourcepb.LabelTerm {
	return &resourcepb.LabelTerm{Key: t.GetKey(), Op: t.GetOp(), Value: t.GetValue(), Invert: true}
}

var selecting = []Rule{
	{Name: "The terms of a label query are all needed", check: func(f *fixture) {
		f.create(thing("both", "x=1", "y=1"))
		f.create(thing("one", "x=1"))
		query := labels(term("x", resourcepb.LabelTerm_EXISTS), term("y", resourcepb.LabelTerm_EQUAL, "1"))
		f.equal("List", f.ids(state.Query{Labels: []*resourcepb.LabelQuery{query}}), "both")
	}},
	{Name: "One of several label queries is enough", check: func(f *fixture) {
		f.create(thing("x", "x=1"))
		f.create(thing("y", "y=1"))
		f.create(thing("z", "z=1"))
		either := []*resourcepb.LabelQuery{labels(term("x", resourcepb.LabelTerm_EXISTS)), labels(term("y", resourcepb.LabelTerm_EXISTS))}
		f.equal("List", f.ids(state.Query{Labels: either}), "x y")
	}},
	{Name: "A missing key has no value, and is neither less nor more", check: func(f *fixture) {
		f.create(thing("has", "n=5"))
		f.create(thing("not"))
		for _, c := range []struct {
			term          *resourcepb.LabelTerm
			want, inverse string
		}{
			{term("n", resourcepb.LabelTerm_EXISTS), "has", "not"},
			{term("n", resourcepb.LabelTerm_NOT_EXISTS), "not", "has"},
			{term("n", resourcepb.LabelTerm_EQUAL, "5"), "has", "not"},
			{term("n", resourcepb.LabelTerm_IN, "4", "5"), "has", "not"},
			{term("n", resourcepb.LabelTerm_LT, "6"), "has", ""},
			{term("n", resourcepb.LabelTerm_LT, "5"), "", "has"},
			{term("n", resourcepb.LabelTerm_LTE, "5"), "has", ""},
			{term("n", resourcepb.LabelTerm_LT_NUMERIC, "1k"), "has", ""},
			{term("n", resourcepb.LabelTerm_LTE_NUMERIC, "4"), "", "has"},
		} {
			f.equal(c.term.String(), f.ids(state.Query{Labels: []*resourcepb.LabelQuery{labels(c.term)}}), c.want)
			f.equal("not "+c.term.String(), f.ids(state.Query{Labels: []*resourcepb.LabelQuery{labels(not(c.term))}}), c.inverse)
		}
	}},
	{Name: "Numeric terms understand k to p and Ki to Pi", check: func(f *fixture) {
		sizes := []string{"1023", "1k", "1Ki", "1m", "1Mi", "1g", "1Gi", "1t", "1Ti", "1p", "1Pi"}
		for i, size := range sizes {
			f.create(thing(fmt.Sprint(10+i), "size="+size))
		}
		for _, c := range []struct{ limit, want string }{
			{"1000", "11"}, {"1Ki", "10 11 12"}, {"1000000", "10 11 12 13"}, {"1Mi", "10 11 12 13 14"}, {"1000m", "10 11 12 13 14 15"},
			{"1024Mi", "10 11 12 13 14 15 16"}, {"1000g", "10 11 12 13 14 15 16 17"}, {"1024Gi", "10 11 12 13 14 15 16 17 18"},
			{"1000t", "10 11 12 13 14 15 16 17 18 19"}, {"1024Ti", "10 11 12 13 14 15 16 17 18 19 20"},
		} {
			query := labels(term("size", resourcepb.LabelTerm_LTE_NUMERIC, c.limit))
			f.equal("at most "+c.limit, f.ids(state.Query{Labels: []*resourcepb.LabelQuery{query}}), c.want)
		}
		query := labels(term("size", resourcepb.LabelTerm_LT_NUMERIC, "1Ki"))
		f.equal("less than 1Ki", f.ids(state.Query{Labels: []*resourcepb.LabelQuery{query}}), "10 11")
	}},
	{Name: "A term that lacks its value is invalid, an unknown operation not implemented", Extended: true, check: func(f *fixture) {
		f.create(thing("a", "n=5"))
		for op, want := range map[resourcepb.LabelTerm_Operation]error{
			resourcepb.LabelTerm_EQUAL: state.ErrInvalid, resourcepb.LabelTerm_IN: state.ErrInvalid, resourcepb.LabelTerm_LT: state.ErrInvalid,
			resourcepb.LabelTerm_LTE: state.ErrInvalid, resourcepb.LabelTerm_LT_NUMERIC: state.ErrInvalid,
			resourcepb.LabelTerm_LTE_NUMERIC: state.ErrInvalid, 99: state.ErrUnimplemented,
		} {
			query := state.Query{Labels: []*resourcepb.LabelQuery{labels(term("n", op))}}
			_, err := f.List(f.ctx, kind, query)
			f.fails("List with "+op.String(), err, want)
			_, err = f.Watch(f.ctx, state.WatchRequest{Kind: kind, Query: query})
			f.fails("Watch with "+op.String(), err, want)
		}
	}},
	{Name: "An id query is an unanchored regular expression", check: func(f *fixture) {
		for _, id := range []string{"sda", "sda1", "vda"} {
			f.create(thing(id))
		}
		f.equal("List", f.ids(state.Query{IDRegexp: "da"}), "sda sda1 vda")
		f.equal("List", f.ids(state.Query{IDRegexp: "^sd.$"}), "sda")
		_, err := f.List(f.ctx, kind, state.Query{IDRegexp: "("})
		f.fails("List", err, state.ErrInvalid)
		_, err = f.Watch(f.ctx, state.WatchRequest{Kind: kind, Query: state.Query{IDRegexp: "("}})
		f.fails("Watch", err, state.ErrInvalid)
	}},
}
