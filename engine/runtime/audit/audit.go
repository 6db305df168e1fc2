// Package audit keeps who changed what, and who was refused what, as AuditRecords.
//
// The runtime's main opens one Log on its stores and puts a State of it around the state that each identity sees, outside access: it sees
// the refusals too. The record of a write to the store that the records live in is committed with the write, all or nothing; that
// of a write to another store (requests live in memory) follows it before the answer. So does that of a refused call; equal ones are then counted
// for a minute, and Run records how many they were, so that whoever knocks all day fills no disk and keeps it from nobody: an identity causes
// at most 17 such writes in a minute, and waits for them itself.
package audit

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"time"

	machinepb "github.com/cosi-os/cosi/api/cosi/machine/v1alpha1"
	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	"github.com/cosi-os/cosi/engine/runtime/output"
	"github.com/cosi-os/cosi/engine/runtime/state"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// Records is the kind of the records.
var Records = state.Kind{Namespace: "audit", Type: "AuditRecords.machine.cosi.dev"}

// Outcomes of a call.
const (
	committed = "Committed"
	refused   = "Refused"
)

// Who is an identity. It can be compared.
type Who struct {
	Name        string // the common name of the client certificate, "plugin/NAME", "local"
	Role        string
	Fingerprint string // of the client certificate
	Address     string
}

// Bounds are how many records are kept, and how many bytes of content they may have.
type Bounds struct{ Records, Bytes int }

// Config is what a Log is made of.
type Config struct {
	// State holds the records. It is below access and schema.
	State state.State
	// Together reports whether a namespace lives in the store of the records.
	Together func(namespace string) bool
	// Identity bounds the records of each identity, All those of all: the oldest go.
	Identity, All Bounds
	// Window is how long equal refused calls are counted.
	Window time.Duration
	Now    func() time.Time
	// Warn is told of records that could not be written.
	Warn func(error)
}

// Defaults suit a node: at most a MiB.
var Defaults = Config{Identity: Bounds{500, 128 << 10}, All: Bounds{4000, 1 << 20}, Window: time.Minute, Now: time.Now}

// Log writes AuditRecords.
type Log struct {
	Config
	refusals *refusals

	mu   sync.Mutex // guards the fields below; held shortly, and never while the store is called
	last uint64     // id of the newest record
	kept *kept
}

// Open reads which records there are. One that nobody can read, or whose id is none of ours, is left alone, and Warn is told: it is no reason
// to take the API away.
func Open(ctx context.Context, c Config) (*Log, error) {
	l := &Log{Config: c, refusals: newRefusals(c.Window), kept: newKept(c.Identity, c.All)}
	all, err := c.State.List(ctx, Records, state.Query{})
	if err != nil {
		return nil, fmt.Errorf("audit: %w", err)
	}
	for _, r := range all {
		id, content, spec := r.ID(), r.Message().GetSpec().GetProtoSpec(), &machinepb.AuditRecord{}
		number, err := strconv.ParseUint(id, 10, 64)
		if err == nil {
			err = proto.Unmarshal(content, spec)
			l.last = max(l.last, number)
		}
		if err != nil {
			c.Warn(fmt.Errorf("audit: record %q is left alone: %w", id, err))
			continue
		}
		l.kept.add(entry{id, len(content), identity(spec.GetWho())})
	}
	return l, nil
}

// identity is what records are counted by: a certificate that is renewed changes its fingerprint.
func identity(w *machinepb.AuditRecord_Who) string { return w.GetRole() + "/" + w.GetName() }

// Run records how many more refused calls there were, until ctx is done.
func (l *Log) Run(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-l.refusals.wake:
		case <-timer.C:
		}
		if next := l.flush(ctx); next > 0 {
			timer.Reset(next)
		}
	}
}

// flush writes what is due and returns how long until something is, 0 for never.
func (l *Log) flush(ctx context.Context) time.Duration {
	due, next := l.refusals.due(l.Now())
	for _, spec := range due {
		l.refuse(ctx, spec)
	}
	return next
}

// refuse writes the record of a refused call. The call stays refused when that fails.
func (l *Log) refuse(ctx context.Context, spec *machinepb.AuditRecord) {
	if err := l.write(ctx, spec); err != nil && ctx.Err() == nil {
		l.Warn(fmt.Errorf("audit: %s of %s refused to %s: %w", spec.GetVerb(), spec.GetType(), spec.GetWho().GetName(), err))
	}
}

// write writes a record in a commit of its own.
func (l *Log) write(ctx context.Context, spec *machinepb.AuditRecord) error {
	added := l.add(spec)
	all := added.companions()
	o := state.WriteOptions{Owner: output.Owner, Along: func(_, _ *resourcepb.Resource) []state.Companion { return all[1:] }}
	_, err := l.State.Create(ctx, all[0].Create, o)
	if err != nil {
		l.undo(added)
	}
	return err
}

// addition is a record that is about to be committed, and those that go for it.
type addition struct {
	record *resourcepb.Resource
	entry  entry
	gone   []entry
}

// add takes up a record. Unless it is committed, undo must follow.
func (l *Log) add(spec *machinepb.AuditRecord) *addition {
	spec.Time = timestamppb.New(l.Now())
	content, err := proto.MarshalOptions{Deterministic: true}.Marshal(spec)
	if err != nil {
		panic(err) // a string that is not UTF-8: gRPC lets none in
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.last++
	a := &addition{entry: entry{fmt.Sprintf("%012d", l.last), len(content), identity(spec.GetWho())}}
	a.record = &resourcepb.Resource{
		Metadata: &resourcepb.Metadata{Namespace: Records.Namespace, Type: Records.Type, Id: a.entry.id, Owner: output.Owner, Phase: state.PhaseRunning},
		Spec:     &resourcepb.Spec{ProtoSpec: content},
	}
	a.gone = l.kept.add(a.entry)
	return a
}

// undo is for a commit that failed: what should have gone with it is still there.
func (l *Log) undo(a *addition) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.kept.undo(a.entry, a.gone)
}

// companions returns the record, and after it what makes room for it.
func (a *addition) companions() []state.Companion {
	all := []state.Companion{{Create: a.record}}
	for _, old := range a.gone {
		all = append(all, state.Companion{Destroy: state.Pointer{Kind: Records, ID: old.id}})
	}
	return all
}
