package inorder

import (
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

func upTo(n int) func(func(int) bool) error {
	return func(yield func(int) bool) error {
		for i := range n {
			if !yield(i) {
				return nil
			}
		}
		return nil
	}
}

// A later item takes less time than an earlier one, and stands behind it all the same.
func TestEachKeepsTheOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got []int
		err := Each(upTo(100), func() (func(int) (int, error), error) {
			return func(i int) (int, error) {
				time.Sleep(time.Duration(100-i) * time.Millisecond)
				return 2 * i, nil
			}, nil
		}, func(i int) error { got = append(got, i); return nil })
		if err != nil || len(got) != 100 || !slices.IsSorted(got) || got[99] != 198 {
			t.Errorf("Each = %v, with results %v", err, got)
		}
	})
}

// Whoever fails first ends the others; none of them waits for ever.
func TestEachReturnsTheFirstError(t *testing.T) {
	stop := errors.New("stop")
	at := func(n int) func(int) (int, error) {
		return func(i int) (int, error) {
			if i == n {
				return 0, stop
			}
			return i, nil
		}
	}
	for name, each := range map[string]func() error{
		"items": func() error {
			return Each(func(yield func(int) bool) error { yield(1); return stop }, func() (func(int) (int, error), error) { return at(-1), nil }, func(int) error { return nil })
		},
		"worker": func() error {
			return Each(upTo(1000), func() (func(int) (int, error), error) { return nil, stop }, func(int) error { return nil })
		},
		"result": func() error {
			return Each(upTo(1000), func() (func(int) (int, error), error) { return at(500), nil }, func(int) error { return nil })
		},
		"add": func() error {
			return Each(upTo(1000), func() (func(int) (int, error), error) { return at(-1), nil }, func(i int) error { _, err := at(500)(i); return err })
		},
	} {
		if err := each(); !errors.Is(err, stop) {
			t.Errorf("%s: Each = %v; want %v", name, err, stop)
		}
	}
}
