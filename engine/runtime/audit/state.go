package audit

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	machinepb "github.com/cosi-os/cosi/api/cosi/machine/v1alpha1"
	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	"github.com/cosi-os/cosi/engine/runtime/access"
	"github.com/cosi-os/cosi/engine/runtime/state"
	"github.com/cosi-os/cosi/engine/runtime/state/encoded"
)

// People returns next as somebody sees it whose writes and refused calls are recorded.
func (l *Log) People(next state.State, w Who) state.State { return &recorder{next, l, w, true} }

// Plugin returns next as a plugin sees it: only its refused calls are recorded.
func (l *Log) Plugin(next state.State, name string) state.State {
	return &recorder{next, l, Who{Name: "plugin/" + name, Role: "plugin"}, false}
}

// recorder records what one identity does with next.
type recorder struct {
	next   state.State
	log    *Log
	who    Who
	writes bool // are recorded
}

func (r *recorder) Get(ctx context.Context, p state.Pointer) (*resourcepb.Resource, error) {
	got, err := r.next.Get(ctx, p)
	return got, r.judge(ctx, access.Get, p, err)
}

func (r *recorder) List(ctx context.Context, k state.Kind, q state.Query) ([]encoded.Resource, error) {
	all, err := r.next.List(ctx, k, q)
	return all, r.judge(ctx, access.List, state.Pointer{Kind: k}, err)
}

func (r *recorder) Watch(ctx context.Context, w state.WatchRequest) (state.Watch, error) {
	watch, err := r.next.Watch(ctx, w)
	p := state.Pointer{Kind: w.Kind}
	if w.ID != nil {
		p.ID = *w.ID
	}
	return watch, r.judge(ctx, access.Watch, p, err)
}

func (r *recorder) Create(ctx context.Context, res *resourcepb.Resource, o state.WriteOptions) (written *resourcepb.Resource, err error) {
	err = r.write(ctx, access.Create, state.PointerTo(res), o, func(o state.WriteOptions) error {
		written, err = r.next.Create(ctx, res, o)
		return err
	})
	return written, err
}

func (r *recorder) Update(ctx context.Context, res *resourcepb.Resource, o state.WriteOptions) (written *resourcepb.Resource, err error) {
	err = r.write(ctx, access.Update, state.PointerTo(res), o, func(o state.WriteOptions) error {
		written, err = r.next.Update(ctx, res, o)
		return err
	})
	return written, err
}

func (r *recorder) Destroy(ctx context.Context, p state.Pointer, o state.WriteOptions) error {
	return r.write(ctx, access.Destroy, p, o, func(o state.WriteOptions) error { return r.next.Destroy(ctx, p, o) })
}

func (r *recorder) Teardown(ctx context.Context, p state.Pointer, o state.WriteOptions) (written *resourcepb.Resource, err error) {
	err = r.write(ctx, access.Teardown, p, o, func(o state.WriteOptions) error {
		written, err = r.next.Teardown(ctx, p, o)
		return err
	})
	return written, err
}

// write does a write and has it recorded. The store says what the write does; in a store that is not that of the records, that is
// written down when it is done.
func (r *recorder) write(ctx context.Context, verb access.Verb, p state.Pointer, o state.WriteOptions, do func(state.WriteOptions) error) error {
	if !r.writes {
		return r.judge(ctx, verb, p, do(o))
	}
	var later *machinepb.AuditRecord
	var added *addition
	along, asserted := o.Along, o.Owner
	o.Along = func(before, after *resourcepb.Resource) []state.Companion {
		var all []state.Companion
		if along != nil {
			all = along(before, after)
		}
		spec := r.record(verb, p)
		describe(spec, before, after, asserted)
		if r.log.Together(p.Namespace) {
			added = r.log.add(spec)
			return append(all, added.companions()...)
		}
		later = spec
		return all
	}
	if err := do(o); err != nil {
		if added != nil {
			r.log.undo(added)
		}
		return r.judge(ctx, verb, p, err)
	}
	if later != nil {
		if err := r.log.write(ctx, later); err != nil {
			r.log.Warn(fmt.Errorf("audit: %s %s by %s: %w", verb, p, r.who.Name, err))
		}
	}
	return nil
}

// describe says what a write did.
func describe(spec *machinepb.AuditRecord, before, after *resourcepb.Resource, owner string) {
	spec.Outcome, spec.Owner = committed, owner
	result := after
	if after == nil {
		result = before
	} else {
		sum := sha256.Sum256(after.GetSpec().GetProtoSpec())
		spec.Digest = hex.EncodeToString(sum[:])
	}
	spec.Version = result.GetMetadata().GetVersion()
	for _, f := range before.GetMetadata().GetFinalizers() {
		if !slices.Contains(after.GetMetadata().GetFinalizers(), f) {
			spec.RemovedFinalizers = append(spec.RemovedFinalizers, f)
		}
	}
}

// judge has a refused call recorded before it is answered, unless it is one of many, and returns err.
func (r *recorder) judge(ctx context.Context, verb access.Verb, p state.Pointer, err error) error {
	if errors.Is(err, state.ErrDenied) || errors.Is(err, state.ErrOwner) {
		spec := r.record(verb, p)
		spec.Outcome, spec.Message = refused, clip(err.Error())
		if r.log.refusals.add(spec, r.log.Now()) {
			r.log.refuse(context.WithoutCancel(ctx), spec) // a caller who hangs up is on record, too
		}
	}
	return err
}

// record is what is known of every call.
func (r *recorder) record(verb access.Verb, p state.Pointer) *machinepb.AuditRecord {
	return &machinepb.AuditRecord{
		Who:  &machinepb.AuditRecord_Who{Name: clip(r.who.Name), Role: r.who.Role, Fingerprint: r.who.Fingerprint, Address: r.who.Address},
		Verb: string(verb), Namespace: clip(p.Namespace), Type: clip(p.Type), Id: clip(p.ID),
	}
}

// longest is how much of each word of a caller a record holds.
const longest = 256

func clip(s string) string {
	if len(s) <= longest {
		return s
	}
	return strings.ToValidUTF8(s[:longest], "") + "…" // not within a character
}
