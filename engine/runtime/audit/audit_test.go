package audit_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	machinepb "github.com/cosi-os/cosi/api/cosi/machine/v1alpha1"
	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	"github.com/cosi-os/cosi/engine/runtime/audit"
	"github.com/cosi-os/cosi/engine/runtime/router"
	"github.com/cosi-os/cosi/engine/runtime/state"
	"github.com/cosi-os/cosi/engine/runtime/state/log"
	"github.com/cosi-os/cosi/engine/runtime/state/memory"
	"google.golang.org/protobuf/proto"
)

const secret = "xyzzy-the-secret"

var (
	things = state.Kind{Namespace: "config", Type: "Things.example.org"}
	ann    = audit.Who{Name: "ann", Role: "admin", Fingerprint: "f1", Address: "192.0.2.1:1"}
	bob    = audit.Who{Name: "bob", Role: "reader", Fingerprint: "f2", Address: "192.0.2.2:1"}
)

// node has a durable store and one in memory, as a node does.
func node(t *testing.T, dir string) (state.State, func() error) {
	t.Helper()
	durable, err := log.Open(dir, log.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return router.New(memory.New(memory.Options{}), map[string]state.State{"config": durable, "audit": durable}), durable.Close
}

func open(t *testing.T, s state.State, change func(*audit.Config)) *audit.Log {
	t.Helper()
	c := audit.Defaults
	c.State, c.Together = s, func(namespace string) bool { return namespace != "requests" }
	c.Warn = func(err error) { t.Error(err) }
	if change != nil {
		change(&c)
	}
	l, err := audit.Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func run(t *testing.T, l *audit.Log) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- l.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("Run: %v", err)
		}
	})
}

func thing(id string) *resourcepb.Resource {
	return &resourcepb.Resource{
		Metadata: &resourcepb.Metadata{Namespace: things.Namespace, Type: things.Type, Id: id, Phase: state.PhaseRunning},
		Spec:     &resourcepb.Spec{ProtoSpec: []byte(secret)},
	}
}

// records returns what was recorded, without the times.
func records(t *testing.T, s state.State) []*machinepb.AuditRecord {
	t.Helper()
	all, err := s.List(t.Context(), audit.Records, state.Query{})
	if err != nil {
		t.Fatal(err)
	}
	var specs []*machinepb.AuditRecord
	for _, listed := range all {
		r := listed.Message()
		if strings.Contains(r.String(), secret) {
			t.Errorf("a record holds content: %v", r)
		}
		spec := &machinepb.AuditRecord{}
		if err := proto.Unmarshal(r.GetSpec().GetProtoSpec(), spec); err != nil {
			t.Fatal(err)
		}
		if time.Since(spec.GetTime().AsTime()) > time.Hour {
			t.Errorf("time = %v", spec.GetTime())
		}
		spec.Time = nil
		specs = append(specs, spec)
	}
	return specs
}

// lines is a short form of records.
func lines(all []*machinepb.AuditRecord) string {
	var b strings.Builder
	for _, r := range all {
		fmt.Fprintf(&b, "%s %s %s %s/%s@%s+%d\n", r.GetWho().GetName(), r.GetOutcome(), r.GetVerb(), r.GetType(), r.GetId(), r.GetVersion(), r.GetRepeated())
	}
	return b.String()
}

func must[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func TestEachWriteIsRecorded(t *testing.T) {
	s, done := node(t, t.TempDir())
	defer done()
	people, ctx := open(t, s, nil).People(s, ann), t.Context()
	ok := must[*resourcepb.Resource](t)
	r := thing("a")
	r.Metadata.Finalizers = []string{"gone"}
	r = ok(people.Create(ctx, r, state.WriteOptions{Owner: "somebody"}))
	r = proto.CloneOf(r)
	r.Metadata.Finalizers = nil
	ok(people.Update(ctx, r, state.WriteOptions{Owner: "somebody"}))
	ok(people.Teardown(ctx, state.PointerTo(r), state.WriteOptions{Owner: "somebody"}))
	ok(people.Teardown(ctx, state.PointerTo(r), state.WriteOptions{Owner: "somebody"})) // changes nothing
	if err := people.Destroy(ctx, state.PointerTo(r), state.WriteOptions{Owner: "somebody", DryRun: true}); err != nil {
		t.Fatal(err)
	}
	if err := people.Destroy(ctx, state.PointerTo(r), state.WriteOptions{Owner: "somebody"}); err != nil {
		t.Fatal(err)
	}
	got := records(t, s)
	const want = "ann Committed create Things.example.org/a@1+0\nann Committed update Things.example.org/a@2+0\n" +
		"ann Committed teardown Things.example.org/a@3+0\nann Committed destroy Things.example.org/a@3+0\n"
	if lines(got) != want {
		t.Fatalf("records:\n%swant:\n%s", lines(got), want)
	}
	sum := sha256.Sum256([]byte(secret))
	if got[0].GetDigest() != hex.EncodeToString(sum[:]) || got[0].GetOwner() != "somebody" || got[0].GetWho().GetAddress() != ann.Address ||
		len(got[1].GetRemovedFinalizers()) != 1 || got[3].GetDigest() != "" {
		t.Errorf("records: %v", got)
	}
}

func TestAWriteThatFailsLeavesNoRecord(t *testing.T) {
	s, done := node(t, t.TempDir())
	defer done()
	people := open(t, s, nil).People(s, ann)
	must[*resourcepb.Resource](t)(people.Create(t.Context(), thing("a"), state.WriteOptions{}))
	if _, err := people.Create(t.Context(), thing("a"), state.WriteOptions{}); !errors.Is(err, state.ErrExists) {
		t.Errorf("a second create: %v", err)
	}
	if n := len(records(t, s)); n != 1 {
		t.Errorf("%d records", n)
	}
}

func TestAWriteToMemoryIsRecordedInTheLog(t *testing.T) {
	s, done := node(t, t.TempDir())
	defer done()
	r := thing("reboot")
	r.Metadata.Namespace = "requests"
	must[*resourcepb.Resource](t)(open(t, s, nil).People(s, ann).Create(t.Context(), r, state.WriteOptions{}))
	if got := records(t, s); len(got) != 1 || got[0].GetNamespace() != "requests" || got[0].GetVersion() != "1" {
		t.Errorf("records: %v", got)
	}
}

func TestRecordsOutliveARestartAndCountOn(t *testing.T) {
	dir := t.TempDir()
	for _, id := range []string{"a", "b"} {
		s, done := node(t, dir)
		must[*resourcepb.Resource](t)(open(t, s, nil).People(s, ann).Create(t.Context(), thing(id), state.WriteOptions{}))
		if id == "b" {
			const want = "ann Committed create Things.example.org/a@1+0\nann Committed create Things.example.org/b@1+0\n"
			if got := lines(records(t, s)); got != want {
				t.Errorf("records:\n%s", got)
			}
		}
		if err := done(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestTheOldestOfAnIdentityGo(t *testing.T) {
	dir := t.TempDir()
	small := func(c *audit.Config) { c.Identity.Records = 3 }
	s, done := node(t, dir)
	l := open(t, s, small)
	must[*resourcepb.Resource](t)(l.People(s, bob).Create(t.Context(), thing("b"), state.WriteOptions{}))
	for i := range 5 {
		must[*resourcepb.Resource](t)(l.People(s, ann).Create(t.Context(), thing(fmt.Sprint(i)), state.WriteOptions{}))
	}
	done()
	s, done = node(t, dir)
	defer done()
	must[*resourcepb.Resource](t)(open(t, s, small).People(s, ann).Create(t.Context(), thing("5"), state.WriteOptions{}))
	const want = "bob Committed create Things.example.org/b@1+0\nann Committed create Things.example.org/3@1+0\n" +
		"ann Committed create Things.example.org/4@1+0\nann Committed create Things.example.org/5@1+0\n"
	if got := lines(records(t, s)); got != want {
		t.Errorf("records:\n%swant:\n%s", got, want)
	}
}

// TestAFailedBatchForgetsNoRecord: what should have gone with a write that failed is still there, and goes with the next.
func TestAFailedBatchForgetsNoRecord(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "log")
	store, err := log.Open(dir, log.Options{SegmentBytes: 1}) // each batch begins a file
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	l := open(t, store, func(c *audit.Config) { c.Identity.Records, c.All.Records = 3, 5 })
	seen := l.People(store, ann)
	for i := range 3 {
		must[*resourcepb.Resource](t)(seen.Create(t.Context(), thing(fmt.Sprint("before", i)), state.WriteOptions{}))
		must[*resourcepb.Resource](t)(l.People(store, bob).Create(t.Context(), thing(fmt.Sprint("bob", i)), state.WriteOptions{}))
	}
	if err := os.Rename(dir, dir+"-away"); err != nil {
		t.Fatal(err)
	}
	for i := range 10 {
		if _, err := seen.Create(t.Context(), thing(fmt.Sprint("failed", i)), state.WriteOptions{}); err == nil {
			t.Fatal("a write without a directory succeeds")
		}
	}
	if err := os.Rename(dir+"-away", dir); err != nil {
		t.Fatal(err)
	}
	must[*resourcepb.Resource](t)(seen.Create(t.Context(), thing("after"), state.WriteOptions{}))
	const want = "ann Committed create Things.example.org/before1@1+0\nbob Committed create Things.example.org/bob1@1+0\n" +
		"ann Committed create Things.example.org/before2@1+0\nbob Committed create Things.example.org/bob2@1+0\n" +
		"ann Committed create Things.example.org/after@1+0\n"
	if got := lines(records(t, store)); got != want {
		t.Errorf("records:\n%swant:\n%s", got, want)
	}
}

func TestARecordThatCannotBeReadIsLeftAlone(t *testing.T) {
	store := memory.New(memory.Options{})
	for id, content := range map[string]string{"mine": "", "12x": "", "000000000004": "\xff"} {
		r := &resourcepb.Resource{
			Metadata: &resourcepb.Metadata{Namespace: audit.Records.Namespace, Type: audit.Records.Type, Id: id, Owner: "runtime", Phase: state.PhaseRunning},
			Spec:     &resourcepb.Spec{ProtoSpec: []byte(content)},
		}
		must[*resourcepb.Resource](t)(store.Create(t.Context(), r, state.WriteOptions{Owner: "runtime"}))
	}
	var warned []string
	l := open(t, store, func(c *audit.Config) { c.Warn = func(err error) { warned = append(warned, err.Error()) } })
	must[*resourcepb.Resource](t)(l.People(store, ann).Create(t.Context(), thing("a"), state.WriteOptions{}))
	all := strings.Join(warned, "\n")
	for _, id := range []string{"mine", "12x", "000000000004"} {
		if !strings.Contains(all, fmt.Sprintf("audit: record %q is left alone: ", id)) {
			t.Errorf("nothing is said of %s:\n%s", id, all)
		}
	}
	if _, err := store.Get(t.Context(), state.Pointer{Kind: audit.Records, ID: "000000000005"}); err != nil {
		t.Errorf("the record of the write: %v", err)
	}
}

func TestBytesAreBoundedAndWhoHasMostGivesWay(t *testing.T) {
	s, done := node(t, t.TempDir())
	defer done()
	l := open(t, s, func(c *audit.Config) { c.Identity.Bytes, c.All.Records = 600, 4 })
	for i := range 6 {
		must[*resourcepb.Resource](t)(l.People(s, ann).Create(t.Context(), thing(fmt.Sprint(i)), state.WriteOptions{}))
	}
	size := 0
	for _, r := range records(t, s) {
		size += proto.Size(r)
	}
	n := len(records(t, s))
	if size > 600 || n < 2 {
		t.Fatalf("%d records of %d bytes", n, size)
	}
	for i := range 4 {
		who := audit.Who{Name: fmt.Sprint("other", i)}
		must[*resourcepb.Resource](t)(l.People(s, who).Create(t.Context(), thing(who.Name), state.WriteOptions{}))
	}
	got := records(t, s)
	if len(got) != 4 || got[3].GetWho().GetName() != "other3" {
		t.Errorf("records:\n%s", lines(got))
	}
}

// denied refuses everything.
type denied struct{ state.State }

func (denied) Get(context.Context, state.Pointer) (*resourcepb.Resource, error) {
	return nil, fmt.Errorf("%w: not for you", state.ErrDenied)
}

func (denied) Create(context.Context, *resourcepb.Resource, state.WriteOptions) (*resourcepb.Resource, error) {
	return nil, fmt.Errorf("%w: not for you", state.ErrDenied)
}

// TestARefusedCallIsRecordedBeforeItIsAnswered: nothing runs that would write it later.
func TestARefusedCallIsRecordedBeforeItIsAnswered(t *testing.T) {
	dir := t.TempDir()
	s, done := node(t, dir)
	l := open(t, s, nil)
	for range 3 {
		if _, err := l.People(denied{s}, bob).Get(t.Context(), state.Pointer{Kind: things, ID: "a"}); !errors.Is(err, state.ErrDenied) {
			t.Fatal(err)
		}
	}
	if _, err := l.Plugin(denied{s}, "mount").Create(t.Context(), thing("x"), state.WriteOptions{}); !errors.Is(err, state.ErrDenied) {
		t.Fatal(err)
	}
	done()
	s, done = node(t, dir)
	defer done()
	const want = "bob Refused get Things.example.org/a@+0\nplugin/mount Refused create Things.example.org/x@+0\n"
	if got := lines(records(t, s)); got != want {
		t.Errorf("records:\n%swant:\n%s", got, want)
	}
}

func TestACallIsRefusedAlsoWhenThatCannotBeRecorded(t *testing.T) {
	s, done := node(t, t.TempDir())
	var warned []string
	l := open(t, s, func(c *audit.Config) { c.Warn = func(err error) { warned = append(warned, err.Error()) } })
	done()
	hungUp, hangUp := context.WithCancel(t.Context())
	hangUp()
	for range 3 {
		if _, err := l.People(denied{s}, bob).Get(hungUp, state.Pointer{Kind: things, ID: "a"}); !errors.Is(err, state.ErrDenied) {
			t.Fatal(err)
		}
	}
	if len(warned) != 1 || !strings.HasPrefix(warned[0], "audit: get of Things.example.org refused to bob: ") {
		t.Errorf("warned %q; want once", warned)
	}
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("still not so: %s", what)
		}
	}
}

func TestRefusedCallsAreCountedForAWindow(t *testing.T) {
	s, done := node(t, t.TempDir())
	defer done()
	l := open(t, s, func(c *audit.Config) { c.Window = 300 * time.Millisecond })
	run(t, l)
	for range 50 {
		if _, err := l.People(denied{s}, bob).Get(t.Context(), state.Pointer{Kind: things, ID: "a"}); !errors.Is(err, state.ErrDenied) {
			t.Fatal(err)
		}
	}
	if _, err := l.Plugin(denied{s}, "mount").Create(t.Context(), thing("x"), state.WriteOptions{}); !errors.Is(err, state.ErrDenied) {
		t.Fatal(err)
	}
	eventually(t, "all calls are recorded", func() bool {
		bobs, plugins := 0, 0
		for _, r := range records(t, s) {
			if r.GetOutcome() != "Refused" || r.GetMessage() == "" {
				t.Fatalf("record: %v", r)
			}
			switch r.GetWho().GetName() {
			case "bob":
				bobs += 1 + int(r.GetRepeated())
			case "plugin/mount":
				plugins++
			}
		}
		return bobs == 50 && plugins == 1
	})
	if n := len(records(t, s)); n > 4 {
		t.Errorf("%d records of 51 calls", n)
	}
}

func TestAFloodOfDifferentRefusedCallsIsBounded(t *testing.T) {
	s, done := node(t, t.TempDir())
	defer done()
	l := open(t, s, nil)
	run(t, l)
	for i := range 1000 {
		l.People(denied{s}, bob).Get(t.Context(), state.Pointer{Kind: state.Kind{Namespace: "config", Type: fmt.Sprint(i, strings.Repeat("ä", 1000))}, ID: "a"})
	}
	eventually(t, "it is recorded", func() bool { return len(records(t, s)) >= 17 })
	time.Sleep(20 * time.Millisecond)
	if n := len(records(t, s)); n != 17 {
		t.Errorf("%d records; want 17: 16 kinds and the rest", n)
	}
}

// A write that its owner refuses is a refused call, and what is only wrong is none.
func TestWhatIsARefusal(t *testing.T) {
	s, done := node(t, t.TempDir())
	defer done()
	l := open(t, s, nil)
	run(t, l)
	must[*resourcepb.Resource](t)(s.Create(t.Context(), thing("owned"), state.WriteOptions{Owner: "somebody"}))
	people := l.People(s, ann)
	if err := people.Destroy(t.Context(), state.Pointer{Kind: things, ID: "none"}, state.WriteOptions{}); !errors.Is(err, state.ErrNotFound) {
		t.Fatal(err)
	}
	if err := people.Destroy(t.Context(), state.Pointer{Kind: things, ID: "owned"}, state.WriteOptions{}); !errors.Is(err, state.ErrOwner) {
		t.Fatal(err)
	}
	eventually(t, "it is recorded", func() bool { return len(records(t, s)) > 0 })
	if got := lines(records(t, s)); got != "ann Refused destroy Things.example.org/owned@+0\n" {
		t.Errorf("records:\n%s", got)
	}
}
