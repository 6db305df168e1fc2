package state

import (
	"errors"
	"fmt"
)

// Compile checks w and compiles its query, for every implementation alike. It fails with ErrUnimplemented when one resource is
// watched with its contents or a query, and with ErrInvalid when w has no kind, an empty id, or more than one place to start.
func (w WatchRequest) Compile() (*Selector, error) {
	if w.Kind.Namespace == "" || w.Kind.Type == "" {
		return nil, fmt.Errorf("%w: a watch needs a namespace and a type", ErrInvalid)
	}
	if w.ID != nil {
		if err := w.checkSingle(); err != nil {
			return nil, err
		}
	}
	if w.TailEvents < 0 {
		return nil, fmt.Errorf("%w: tail_events: %d is negative", ErrInvalid, w.TailEvents)
	}
	starts := 0
	for _, set := range []bool{w.BootstrapContents, w.TailEvents > 0, w.Bookmark != nil} {
		if set {
			starts++
		}
	}
	if starts > 1 {
		return nil, fmt.Errorf("%w: bootstrap_contents, tail_events and start_from_bookmark exclude each other", ErrInvalid)
	}
	return w.Query.Compile()
}

func (w WatchRequest) checkSingle() error {
	switch {
	case *w.ID == "":
		return fmt.Errorf("%w: the id is empty", ErrInvalid)
	case w.BootstrapContents:
		return fmt.Errorf("bootstrap_contents with an id: %w", ErrUnimplemented)
	case len(w.Labels) > 0:
		return fmt.Errorf("label_query with an id: %w", ErrUnimplemented)
	case w.IDRegexp != "":
		return fmt.Errorf("id_query with an id: %w", ErrUnimplemented)
	}
	return nil
}

// Sentinels returns every sentinel of this package.
func Sentinels() []error {
	return []error{
		ErrNotFound, ErrExists, ErrOwner, ErrConflict, ErrPhase, ErrFinalizers, ErrInvalid, ErrDenied, ErrUnimplemented, ErrBookmark,
		ErrSlow, ErrLimit, ErrFrozen, ErrNoSpace,
	}
}

// SentinelOf returns the sentinel that err is or wraps, nil if none.
func SentinelOf(err error) error {
	for _, sentinel := range Sentinels() {
		if errors.Is(err, sentinel) {
			return sentinel
		}
	}
	return nil
}
