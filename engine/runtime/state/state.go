// Package state is the contract of everything in the runtime that holds, guards or routes resources.
//
// The in-memory store and the durable log implement State, and so do the layers in front of them (schema, access, router): each wraps
// another State. One conformance suite, package statetest, runs against all of them. The gRPC server calls the outermost one.
package state

import (
	"context"
	"errors"
	"fmt"

	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	"github.com/cosi-os/cosi/engine/runtime/state/encoded"
)

// State holds resources. Resources that it takes and returns are shared and must not be changed by anyone afterwards.
// Errors are, or wrap, the sentinels below; package server gives each its gRPC code.
type State interface {
	// Get returns a resource or ErrNotFound.
	Get(ctx context.Context, p Pointer) (*resourcepb.Resource, error)
	// List returns the resources of a kind in the order of their ids, each in the form that it is kept in: most are only to be sent. The slice
	// belongs to the caller.
	List(ctx context.Context, k Kind, q Query) ([]encoded.Resource, error)
	// Create stores r with version 1 and the owner of o. It fails with ErrExists, or ErrInvalid when r names another owner.
	Create(ctx context.Context, r *resourcepb.Resource, o WriteOptions) (*resourcepb.Resource, error)
	// Update replaces a resource. In this order: ErrNotFound, ErrOwner, ErrConflict (version), ErrPhase.
	Update(ctx context.Context, r *resourcepb.Resource, o WriteOptions) (*resourcepb.Resource, error)
	// Destroy removes a resource: ErrNotFound, ErrOwner, ErrFinalizers.
	Destroy(ctx context.Context, p Pointer, o WriteOptions) error
	// Teardown moves a resource to PhaseTearingDown and returns it as it then is: ErrNotFound, ErrOwner.
	Teardown(ctx context.Context, p Pointer, o WriteOptions) (*resourcepb.Resource, error)
	// Watch starts a watch. Errors of its set-up come here, later ones as an ERRORED event.
	Watch(ctx context.Context, w WatchRequest) (Watch, error)
}

// Kind is a type in a namespace.
type Kind struct{ Namespace, Type string }

func (k Kind) String() string { return k.Namespace + "/" + k.Type }

// Pointer names one resource.
type Pointer struct {
	Kind
	ID string
}

func (p Pointer) String() string { return p.Kind.String() + "/" + p.ID }

// PointerTo returns the pointer of r.
func PointerTo(r *resourcepb.Resource) Pointer {
	m := r.GetMetadata()
	return Pointer{Kind{m.GetNamespace(), m.GetType()}, m.GetId()}
}

// Phases of a resource on the wire.
const (
	PhaseRunning     = "running"
	PhaseTearingDown = "tearingDown"
)

// VersionUndefined is the version of a tombstone.
const VersionUndefined = "undefined"

// WriteOptions go with every write.
type WriteOptions struct {
	// Owner must be the resource's owner exactly.
	Owner string
	// Phase, if set, is the phase that an updated resource must be in.
	Phase string
	// DryRun does everything but commit.
	DryRun bool
	// Along, if set, says what else is committed with the write, all or nothing, given what it does: before is nil when the resource
	// is created, after when it is destroyed. Not called for a dry run, nor when nothing changes. The store calls it with its lock
	// held: it must be quick and not use the store.
	Along func(before, after *resourcepb.Resource) []Companion
}

// Companion is a change that is committed together with a write, in the same store. Either field is set, and no
// commit names a resource twice.
type Companion struct {
	// Create is a resource to create, with the owner that it names.
	Create *resourcepb.Resource
	// Destroy names a resource to destroy, whoever owns it. One that is not there, or that finalizers hold, is left alone.
	Destroy Pointer
}

// Pointer names the resource that c is about.
func (c Companion) Pointer() Pointer {
	if c.Create != nil {
		return PointerTo(c.Create)
	}
	return c.Destroy
}

// Query selects resources: those for which any of Labels holds (none: all) and whose id matches IDRegexp (empty: all).
type Query struct {
	Labels   []*resourcepb.LabelQuery
	IDRegexp string
}

// WatchRequest says what to watch and where to start.
type WatchRequest struct {
	Kind Kind
	// ID, if set, watches one resource.
	ID *string
	Query
	// BootstrapContents sends what is there first, then BOOTSTRAPPED.
	BootstrapContents bool
	// BootstrapBookmark sends NOOP with the present position first.
	BootstrapBookmark bool
	// TailEvents starts with that many of the last events.
	TailEvents int
	// Bookmark, if not nil, goes on after that position.
	Bookmark []byte
}

// Watch is a running watch. It ends when its context does.
type Watch interface {
	// Next waits for events and returns all that are ready, at least one, in commit order. After an error event it returns
	// ErrSlow or what ended the watch; when the context is done, its error.
	Next(ctx context.Context) ([]*Event, error)
}

// Event is one change. It is shared by all watchers, so that it is encoded once.
type Event = resourcepb.Event

// Sentinels, one a decision that callers make.
var (
	ErrNotFound      = errors.New("not found")
	ErrExists        = errors.New("already exists")
	ErrOwner         = errors.New("owner does not match")
	ErrConflict      = errors.New("version does not match")
	ErrPhase         = errors.New("phase does not match")
	ErrFinalizers    = errors.New("finalizers are left")
	ErrInvalid       = errors.New("invalid")
	ErrDenied        = errors.New("permission denied")
	ErrUnimplemented = errors.New("not implemented")
	ErrBookmark      = errors.New("bookmark is invalid or has expired")
	ErrSlow          = errors.New("watcher fell behind")
	ErrLimit         = errors.New("limit exceeded")
	ErrFrozen        = errors.New("the state cannot be used and takes no writes")
	ErrNoSpace       = errors.New("no space left for writes")
)

// FieldError is one thing wrong with one field. It wraps ErrInvalid.
type FieldError struct {
	Path    string // "spec.flags[1]"
	Message string
}

func (e *FieldError) Error() string { return fmt.Sprintf("%s: %s", e.Path, e.Message) }

func (e *FieldError) Unwrap() error { return ErrInvalid }

// FieldErrors are all that is wrong with a resource.
type FieldErrors []*FieldError

func (e FieldErrors) Error() string {
	if len(e) == 1 {
		return e[0].Error()
	}
	return fmt.Sprintf("%s (and %d more)", e[0].Error(), len(e)-1)
}

func (e FieldErrors) Unwrap() error { return ErrInvalid }
