package access_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	metapb "github.com/cosi-os/cosi/api/cosi/resource/meta"
	"github.com/cosi-os/cosi/api/declaration"
	"github.com/cosi-os/cosi/engine/runtime/access"
	"github.com/cosi-os/cosi/engine/runtime/state"
	"github.com/cosi-os/cosi/engine/runtime/state/memory"
	"google.golang.org/protobuf/proto"
)

const (
	mounts   = "MountPoints.storage.cosi.dev"
	statuses = "MountPointStatuses.storage.cosi.dev"
	secrets  = "Certificates.machine.cosi.dev"
	links    = "Links.network.cosi.dev"
	widgets  = "ResourceDefinitions.meta.cosi.dev"
	spaces   = "Namespaces.meta.cosi.dev"
	unknown  = "Olds.example.org"
)

func definitions(typ string) *metapb.ResourceDefinitionSpec {
	switch typ {
	case secrets:
		return &metapb.ResourceDefinitionSpec{Sensitivity: metapb.ResourceDefinitionSpec_SENSITIVE}
	case unknown:
		return nil
	}
	return &metapb.ResourceDefinitionSpec{}
}

func person(role access.Role) access.Identity {
	return access.Person{Role: role, Definitions: definitions}
}

func mountPlugin() *access.Plugin {
	return access.NewPlugin(&declaration.Declaration{
		Name: "mount", Inputs: []declaration.Input{{Type: mounts, Finalizers: true}, {Type: links}}, Outputs: []string{statuses},
	})
}

func userdataPlugin() *access.Plugin {
	return access.NewPlugin(&declaration.Declaration{Name: "userdata", Operator: true, Outputs: []string{"UserDataSources.machine.cosi.dev"}})
}

// world is a store with one resource of each sort.
func world(t *testing.T) state.State {
	t.Helper()
	s := memory.New(memory.Options{})
	for _, r := range []struct{ namespace, typ, id, owner string }{
		{"config", mounts, "data", ""}, {"config", secrets, "node", ""}, {"config", links, "eth0", ""}, {"meta", widgets, "w", ""}, {"meta", spaces, "s", ""},
		{"status", statuses, "data", "mount"}, {"status", statuses, "theirs", "other"},
	} {
		if _, err := s.Create(context.Background(), resource(r.namespace, r.typ, r.id, r.owner), state.WriteOptions{Owner: r.owner}); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func resource(namespace, typ, id, owner string) *resourcepb.Resource {
	return &resourcepb.Resource{
		Metadata: &resourcepb.Metadata{Namespace: namespace, Type: typ, Id: id, Owner: owner, Phase: state.PhaseRunning},
		Spec:     &resourcepb.Spec{ProtoSpec: []byte("proto"), YamlSpec: "yaml"},
	}
}

// verbs try one thing each on a resource, as owner.
func create(s state.State, r *resourcepb.Resource, owner string) error {
	r.Metadata.Id += "-new"
	_, err := s.Create(context.Background(), r, state.WriteOptions{Owner: owner})
	return err
}

func update(s state.State, r *resourcepb.Resource, owner string) error {
	r.Metadata.Version = "1"
	r.Spec = &resourcepb.Spec{ProtoSpec: []byte("changed")}
	_, err := s.Update(context.Background(), r, state.WriteOptions{Owner: owner})
	return err
}

func destroy(s state.State, r *resourcepb.Resource, owner string) error {
	return s.Destroy(context.Background(), state.PointerTo(r), state.WriteOptions{Owner: owner})
}

func teardown(s state.State, r *resourcepb.Resource, owner string) error {
	_, err := s.Teardown(context.Background(), state.PointerTo(r), state.WriteOptions{Owner: owner})
	return err
}

func TestWhoMayWrite(t *testing.T) {
	type verb = func(state.State, *resourcepb.Resource, string) error
	all := map[string]verb{"create": create, "update": update, "destroy": destroy, "teardown": teardown}
	for _, c := range []struct {
		who                        string
		id                         access.Identity
		namespace, typ, key, owner string
		want                       string // part of the refusal; empty: allowed
	}{
		{"admin", person(access.Admin), "config", mounts, "data", "", ""},
		{"admin", person(access.Admin), "config", secrets, "node", "", ""},
		{"admin", person(access.Admin), "meta", widgets, "w", "", ""},
		{"admin", person(access.Admin), "status", statuses, "data", "", "written by their owners"},
		{"admin asserting an owner", person(access.Admin), "status", statuses, "data", "mount", ""},
		{"operator", person(access.Operator), "config", mounts, "data", "", ""},
		{"operator", person(access.Operator), "config", secrets, "node", "", "is sensitive"},
		{"operator", person(access.Operator), "meta", widgets, "w", "", "namespace meta needs the role admin"},
		{"operator", person(access.Operator), "status", statuses, "data", "", "written by their owners"},
		{"operator asserting an owner", person(access.Operator), "status", statuses, "data", "mount", "only the role admin may name an owner"},
		{"reader", person(access.Reader), "config", mounts, "data", "", "the role reader only reads"},
		{"plugin, own output", mountPlugin(), "status", statuses, "data", "mount", ""},
		{"plugin, own output without owner", mountPlugin(), "status", statuses, "data", "", `it writes as "mount"`},
		{"plugin, own output as another", mountPlugin(), "status", statuses, "theirs", "other", `it writes as "mount"`},
		{"plugin, undeclared kind", mountPlugin(), "config", secrets, "node", "", "no output"},
		{"plugin, undeclared kind as itself", mountPlugin(), "config", secrets, "node", "mount", "no output"},
		{"operator plugin, config", userdataPlugin(), "config", secrets, "node", "", ""},
		{"operator plugin, config as itself", userdataPlugin(), "config", mounts, "data", "userdata", "no output"},
		{"operator plugin, meta", userdataPlugin(), "meta", spaces, "s", "", "no output"},
		{"operator plugin, definitions as itself", userdataPlugin(), "meta", widgets, "w", "userdata", "no output"},
		{"operator plugin, others' status", userdataPlugin(), "status", statuses, "data", "mount", "no output"},
	} {
		for name, verb := range all {
			err := verb(access.New(world(t), c.id), resource(c.namespace, c.typ, c.key, c.owner), c.owner)
			check(t, c.who+" "+name+" "+c.typ, err, c.want)
		}
	}
}

// TestUserDataBringsDefinitions: and removes none.
func TestUserDataBringsDefinitions(t *testing.T) {
	for name, c := range map[string]struct {
		verb func(state.State, *resourcepb.Resource, string) error
		want string
	}{"create": {create, ""}, "update": {update, ""}, "destroy": {destroy, "no output"}, "teardown": {teardown, "no output"}} {
		check(t, name, c.verb(access.New(world(t), userdataPlugin()), resource("meta", widgets, "w", ""), ""), c.want)
		check(t, name+" by another plugin", c.verb(access.New(world(t), mountPlugin()), resource("meta", widgets, "w", ""), ""), "no output")
	}
}

func check(t *testing.T, what string, err error, want string) {
	t.Helper()
	switch {
	case want == "" && err != nil:
		t.Errorf("%s: %v; want it allowed", what, err)
	case want != "" && (!errors.Is(err, state.ErrDenied) || !strings.Contains(err.Error(), want)):
		t.Errorf("%s: %v; want ErrDenied that says %q", what, err, want)
	}
}

func TestWhoMayRead(t *testing.T) {
	for _, c := range []struct {
		who            string
		id             access.Identity
		namespace, typ string
		want           string
	}{
		{"admin", person(access.Admin), "config", secrets, ""},
		{"operator", person(access.Operator), "config", secrets, "is sensitive"},
		{"reader", person(access.Reader), "config", secrets, "is sensitive"},
		{"reader", person(access.Reader), "status", statuses, ""},
		{"admin", person(access.Admin), "config", unknown, ""},
		{"reader", person(access.Reader), "config", unknown, "has no definition, which needs the role admin"},
		{"operator", person(access.Operator), "config", unknown, "has no definition, which needs the role admin"},
		{"plugin, input", mountPlugin(), "config", mounts, ""},
		{"plugin, output", mountPlugin(), "status", statuses, ""},
		{"plugin, undeclared", mountPlugin(), "config", secrets, "neither an input nor an output"},
		{"plugin, definitions", mountPlugin(), "meta", widgets, "neither an input nor an output"},
		{"operator plugin, config", userdataPlugin(), "config", secrets, ""},
		{"operator plugin, definitions", userdataPlugin(), "meta", widgets, ""},
		{"operator plugin, status", userdataPlugin(), "status", statuses, "neither an input nor an output"},
	} {
		s, ctx, kind := access.New(world(t), c.id), context.Background(), state.Kind{Namespace: c.namespace, Type: c.typ}
		_, err := s.List(ctx, kind, state.Query{})
		check(t, c.who+" list", err, c.want)
		_, err = s.Watch(ctx, state.WatchRequest{Kind: kind})
		check(t, c.who+" watch", err, c.want)
		if _, err = s.Get(ctx, state.Pointer{Kind: kind, ID: "x"}); errors.Is(err, state.ErrNotFound) {
			err = nil
		}
		check(t, c.who+" get", err, c.want)
	}
}

func TestOfAnInputOnlyTheOwnFinalizerComesAndGoes(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*resourcepb.Resource)
		owner  string
		want   string
	}{
		"own finalizer": {func(r *resourcepb.Resource) { r.Metadata.Finalizers = []string{"mount"} }, "", ""},
		"in yaml form": {func(r *resourcepb.Resource) {
			r.Metadata.Finalizers, r.Spec = []string{"mount"}, &resourcepb.Spec{YamlSpec: "yaml"}
		}, "", ""},
		"another's finalizer": {func(r *resourcepb.Resource) { r.Metadata.Finalizers = []string{"other"} }, "", "finalizers of others"},
		"content":             {func(r *resourcepb.Resource) { r.Spec = &resourcepb.Spec{ProtoSpec: []byte("x")} }, "", "cannot change the content"},
		"no content":          {func(r *resourcepb.Resource) { r.Spec = nil }, "", "cannot change the content"},
		"content in yaml":     {func(r *resourcepb.Resource) { r.Spec = &resourcepb.Spec{YamlSpec: "x"} }, "", "cannot change the content"},
		"labels":              {func(r *resourcepb.Resource) { r.Metadata.Labels = map[string]string{"a": "b"} }, "", "cannot change the labels"},
		"annotations":         {func(r *resourcepb.Resource) { r.Metadata.Annotations = map[string]string{"a": "b"} }, "", "cannot change the annotations"},
		"phase":               {func(r *resourcepb.Resource) { r.Metadata.Phase = state.PhaseTearingDown }, "", "cannot change the phase"},
		"owner":               {func(r *resourcepb.Resource) { r.Metadata.Owner = "mount" }, "", "cannot change the owner"},
		"as itself":           {func(r *resourcepb.Resource) { r.Metadata.Finalizers = []string{"mount"} }, "mount", `the resource's owner is ""`},
	} {
		base := world(t)
		s := access.New(base, mountPlugin())
		r, err := s.Get(context.Background(), state.Pointer{Kind: state.Kind{Namespace: "config", Type: mounts}, ID: "data"})
		if err != nil {
			t.Fatal(err)
		}
		r = proto.CloneOf(r)
		c.change(r)
		_, err = s.Update(context.Background(), r, state.WriteOptions{Owner: c.owner})
		check(t, name, err, c.want)
	}
}

func TestInputsAreNotDestroyed(t *testing.T) {
	s := access.New(world(t), mountPlugin())
	check(t, "destroy", destroy(s, resource("config", mounts, "data", ""), ""), "it is an input")
	check(t, "teardown", teardown(s, resource("config", mounts, "data", ""), ""), "it is an input")
	check(t, "create", create(s, resource("config", mounts, "data", ""), ""), "it is an input")
	check(t, "an input without finalizers", update(s, resource("config", links, "eth0", ""), ""), "does not let the plugin put finalizers")
}

func TestFinalizersComeTooLateWhileTearingDown(t *testing.T) {
	base, ctx := world(t), context.Background()
	p := state.Pointer{Kind: state.Kind{Namespace: "config", Type: mounts}, ID: "data"}
	r, err := base.Teardown(ctx, p, state.WriteOptions{})
	if err != nil {
		t.Fatal(err)
	}
	r = proto.CloneOf(r)
	r.Metadata.Finalizers = []string{"mount"}
	for name, id := range map[string]access.Identity{"plugin": mountPlugin(), "admin": person(access.Admin)} {
		if _, err := access.New(base, id).Update(ctx, r, state.WriteOptions{}); !errors.Is(err, state.ErrInvalid) {
			t.Errorf("%s: %v; want ErrInvalid", name, err)
		}
	}
}

func TestOnlyAnAdminChangesFinalizers(t *testing.T) {
	for role, want := range map[access.Role]string{access.Admin: "", access.Operator: "cannot change the finalizers"} {
		r := resource("config", mounts, "data", "")
		r.Metadata.Finalizers = []string{"gone"}
		check(t, string(role), update(access.New(world(t), person(role)), r, ""), want)
	}
}

func TestAStaleUpdateIsAConflict(t *testing.T) {
	r := resource("config", mounts, "data", "")
	r.Metadata.Version = "7"
	_, err := access.New(world(t), mountPlugin()).Update(context.Background(), r, state.WriteOptions{})
	if !errors.Is(err, state.ErrConflict) {
		t.Errorf("%v; want ErrConflict", err)
	}
}

func TestNothingIsLearntAboutWhatMayNotBeWritten(t *testing.T) {
	r := resource("config", secrets, "no such", "")
	check(t, "plugin", update(access.New(world(t), mountPlugin()), r, ""), "no output")
}

func TestPersonsRemoveTheProvenance(t *testing.T) {
	for name, c := range map[string]struct {
		id   access.Identity
		want string
	}{"operator": {person(access.Operator), ""}, "user data": {userdataPlugin(), "userdata/x"}} {
		r := resource("config", mounts, "new", "")
		r.Metadata.Annotations = map[string]string{access.AnnotationProvenance: "userdata/x", "other": "stays"}
		got, err := access.New(world(t), c.id).Create(context.Background(), r, state.WriteOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if a := got.GetMetadata().GetAnnotations(); a[access.AnnotationProvenance] != c.want || a["other"] != "stays" {
			t.Errorf("%s: annotations %v", name, a)
		}
		if r.Metadata.Annotations[access.AnnotationProvenance] == "" {
			t.Errorf("%s: the caller's resource was changed", name)
		}
	}
}

func TestRegistrationNarrowsAndNeverWidens(t *testing.T) {
	p := mountPlugin()
	s := access.New(world(t), p)
	read := func() error {
		_, err := s.List(context.Background(), state.Kind{Namespace: "config", Type: links}, state.Query{})
		return err
	}
	if err := p.Narrow(access.Rights{Inputs: []string{mounts}, Outputs: []string{statuses}}); err != nil {
		t.Fatal(err)
	}
	check(t, "an input that was not registered", read(), "did not register it")
	for _, r := range []access.Rights{{Inputs: []string{secrets}}, {Outputs: []string{secrets}}} {
		check(t, "widening", p.Narrow(r), "its declaration does not have")
	}
	check(t, "after the refused registration", read(), "did not register it")
	p.Restore()
	check(t, "after the session", read(), "")
}

// TestAWatchEndsWhenItsKindIsNoLongerForEverybody: rights are those of the moment in which something is shown.
func TestAWatchEndsWhenItsKindIsNoLongerForEverybody(t *testing.T) {
	for _, id := range []*string{nil, proto.String("a")} {
		sensitivity, store := metapb.ResourceDefinitionSpec_NON_SENSITIVE, memory.New(memory.Options{})
		reader := access.New(store, access.Person{Role: access.Reader, Definitions: func(string) *metapb.ResourceDefinitionSpec {
			return &metapb.ResourceDefinitionSpec{Sensitivity: sensitivity}
		}})
		watch, err := reader.Watch(t.Context(), state.WatchRequest{Kind: state.Kind{Namespace: "config", Type: mounts}, ID: id, BootstrapContents: id == nil})
		if err != nil {
			t.Fatal(err)
		}
		if events, err := watch.Next(t.Context()); err != nil || len(events) != 1 {
			t.Fatalf("the first event: %v, %v", events, err)
		}
		sensitivity = metapb.ResourceDefinitionSpec_SENSITIVE
		if _, err := store.Create(t.Context(), resource("config", mounts, "a", ""), state.WriteOptions{}); err != nil {
			t.Fatal(err)
		}
		events, err := watch.Next(t.Context())
		if check(t, "a watch of what is a secret now", err, "is sensitive"); len(events) > 0 {
			t.Errorf("it shows %v", events)
		}
	}
}

func TestRoles(t *testing.T) {
	for _, c := range []struct {
		organisations []string
		want          access.Role
		ok            bool
	}{
		{[]string{"reader", "admin"}, access.Admin, true},
		{[]string{"operator"}, access.Operator, true},
		{[]string{"Admin"}, "", false},
		{nil, "", false},
	} {
		if got, ok := access.RoleOf(c.organisations); got != c.want || ok != c.ok {
			t.Errorf("RoleOf(%v) = %q, %v; want %q, %v", c.organisations, got, ok, c.want, c.ok)
		}
	}
}
