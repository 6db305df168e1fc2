package schema_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/bufbuild/protocompile"
	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	metapb "github.com/cosi-os/cosi/api/cosi/resource/meta"
	"github.com/cosi-os/cosi/api/kinds/builtin"
	"github.com/cosi-os/cosi/engine/runtime/output"
	"github.com/cosi-os/cosi/engine/runtime/router"
	"github.com/cosi-os/cosi/engine/runtime/schema"
	"github.com/cosi-os/cosi/engine/runtime/state"
	"github.com/cosi-os/cosi/engine/runtime/state/log"
	"github.com/cosi-os/cosi/engine/runtime/state/memory"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
)

// gadgets returns the definition of a kind of people, whose message Gadget has the body.
func gadgets(t testing.TB, body string) *metapb.ResourceDefinitionSpec {
	t.Helper()
	source := fmt.Sprintf(`syntax = "proto3";
package example;
import "buf/validate/validate.proto";
import "cosi/resource/meta/meta.proto";
enum Color { RED = 0; BLUE = 1; }
message Part { string name = 1; }
message Gadget {
  option (cosi.resource.meta.kind) = {resource_type: "Gadgets.example.org", display_type: "Gadget", default_namespace: "config"};
  %s
}`, body)
	compiler := protocompile.Compiler{Resolver: protocompile.ResolverFunc(func(path string) (protocompile.SearchResult, error) {
		if path == "gadget.proto" {
			return protocompile.SearchResult{Source: strings.NewReader(source)}, nil
		}
		file, err := protoregistry.GlobalFiles.FindFileByPath(path)
		return protocompile.SearchResult{Desc: file}, err
	})}
	files, err := compiler.Compile(context.Background(), "gadget.proto")
	if err != nil {
		t.Fatal(err)
	}
	set := &descriptorpb.FileDescriptorSet{}
	appendFile(set, map[string]bool{}, files[0])
	descriptors, err := proto.Marshal(set)
	if err != nil {
		t.Fatal(err)
	}
	return &metapb.ResourceDefinitionSpec{
		ResourceType: "Gadgets.example.org", DisplayType: "Gadget", DefaultNamespace: "config", Message: "example.Gadget", Descriptors: descriptors,
	}
}

func appendFile(set *descriptorpb.FileDescriptorSet, done map[string]bool, file protoreflect.FileDescriptor) {
	if done[file.Path()] {
		return
	}
	done[file.Path()] = true
	for i := range file.Imports().Len() {
		appendFile(set, done, file.Imports().Get(i).FileDescriptor)
	}
	set.File = append(set.File, protodesc.ToFileDescriptorProto(file))
}

const gadgetID = "gadgets.example.org"

// define creates or replaces the definition.
func define(s state.State, d *metapb.ResourceDefinitionSpec) error {
	r := resource("meta", schema.Definitions.Type, gadgetID, "", d)
	old, err := s.Get(context.Background(), state.Pointer{Kind: schema.Definitions, ID: gadgetID})
	if err == nil {
		r.Metadata.Version = old.GetMetadata().GetVersion()
		_, err = s.Update(context.Background(), r, state.WriteOptions{})
		return err
	}
	_, err = s.Create(context.Background(), r, state.WriteOptions{})
	return err
}

func create(s state.State, id, yaml string) error {
	_, err := s.Create(context.Background(), resource("config", "Gadgets.example.org", id, yaml, nil), state.WriteOptions{})
	return err
}

const body = `string name = 1; int32 size = 2; repeated string tags = 3; Color color = 4; Part part = 5; oneof how { string fast = 6; string slow = 7; }`

func TestASchemaThatResourcesDoNotFitIsRefused(t *testing.T) {
	for name, c := range map[string]struct {
		fresh string
		want  string // empty: it is taken
	}{
		"the same":        {body, ""},
		"a new field":     {body + ` string more = 8;`, ""},
		"gone":            {strings.Replace(body, "int32 size = 2;", "", 1), "the field Gadget.size is gone"},
		"renamed":         {strings.Replace(body, "int32 size", "int32 width", 1), "the field Gadget.size is renamed to width"},
		"with both names": {strings.Replace(body, "int32 size = 2", `int32 width = 2 [json_name = "size"]`, 1), ""},
		"another number":  {strings.Replace(body, "size = 2", "size = 20", 1), "changes its number from 2 to 20"},
		"another type":    {strings.Replace(body, "int32 size", "string size", 1), "changes from int32 to string"},
		"no longer many":  {strings.Replace(body, "repeated string tags", "string tags", 1), "changes from repeated to optional"},
		"out of a oneof":  {`string name = 1; int32 size = 2; repeated string tags = 3; Color color = 4; Part part = 5; optional string fast = 6; string slow = 7;`, "moves from the oneof how to no oneof"},
		"a rule it keeps": {strings.Replace(body, "size = 2", "size = 2 [(buf.validate.field).int32.gte = 3]", 1), ""},
		"a rule it breaks": {strings.Replace(body, "size = 2", "size = 2 [(buf.validate.field).int32.gte = 4]", 1),
			`"a" does not fit: spec.size: must be greater than or equal to 4`},
	} {
		s := newState("")
		if err := define(s, gadgets(t, body)); err != nil {
			t.Fatal(err)
		}
		if err := create(s, "a", "{name: x, size: 3, color: BLUE, part: {name: y}}"); err != nil {
			t.Fatal(err)
		}
		err := define(s, gadgets(t, c.fresh))
		if c.want == "" && err != nil || c.want != "" && (!errors.Is(err, state.ErrInvalid) || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "1 resources of")) {
			t.Errorf("%s: %v; want %q", name, err, c.want)
		}
		a := state.Pointer{Kind: state.Kind{Namespace: "config", Type: "Gadgets.example.org"}, ID: "a"}
		if got, err := s.Get(context.Background(), a); err != nil || strings.Contains(got.GetSpec().GetYamlSpec(), "width: 3") != (name == "with both names") {
			t.Errorf("%s: the resource is %v, %v", name, got, err)
		}
		if err := s.Destroy(context.Background(), a, state.WriteOptions{}); err != nil {
			t.Fatal(err)
		}
		if err := define(s, gadgets(t, c.fresh)); err != nil {
			t.Errorf("%s: without resources: %v", name, err)
		}
	}
}

func TestRulesOfPeopleAreKept(t *testing.T) {
	s := newState("")
	d := gadgets(t, `string name = 1 [(buf.validate.field).cel = {id: "quiet", message: "do not shout", expression: "this == this.lowerAscii()"}];`)
	if err := define(s, d); err != nil {
		t.Fatal(err)
	}
	if err := create(s, "a", "name: quiet"); err != nil {
		t.Error(err)
	}
	if err := create(s, "b", "name: LOUD"); !errors.Is(err, state.ErrInvalid) || !strings.Contains(err.Error(), "spec.name: do not shout") {
		t.Errorf("a broken rule: %v", err)
	}
	if err := create(s, "c", "nmae: x"); !errors.Is(err, state.ErrInvalid) || !strings.Contains(err.Error(), "did you mean") {
		t.Errorf("a misspelt field: %v; want the nearest name", err)
	}
}

func TestDefinitionsAreBounded(t *testing.T) {
	long := strings.Repeat("this.name != 'x' && ", 120) + "true"
	many := &strings.Builder{}
	for i := range 65 {
		fmt.Fprintf(many, "  option (buf.validate.message).cel = {id: \"r%d\", expression: \"this.name != ''\"};\n", i)
	}
	wide := &strings.Builder{}
	for i := range 1100 {
		fmt.Fprintf(wide, "string f%d = %d;\n", i, i+1)
	}
	deep := "string name = 1;"
	for i := range 17 {
		deep = fmt.Sprintf("message M%d { %s } M%d m = 1;", i, deep, i)
	}
	for name, c := range map[string]struct{ body, want string }{
		"a long rule":     {`string name = 1; option (buf.validate.message).cel = {id: "long", expression: "` + long + `"};`, `rule "long" of example.Gadget is 2404 bytes long`},
		"many rules":      {`string name = 1;` + many.String(), "have 65 rules, and 64 are allowed"},
		"many fields":     {wide.String(), "fields, and 1000 are allowed"},
		"deep":            {deep, "deep, and 16 are allowed"},
		"no expression":   {`string name = 1 [(buf.validate.field).cel = {id: "bad", expression: "this +"}];`, `rule "bad" of example.Gadget.name`},
		"unknown field":   {`string name = 1; option (buf.validate.message).cel = {id: "bad", expression: "this.nmae == ''"};`, `rule "bad"`},
		"a dear rule":     {`repeated string a = 1; option (buf.validate.message).cel = {id: "dear", expression: "this.a.all(x, this.a.all(y, x != y))"};`, `rule "dear" of example.Gadget: it may take`},
		"a bounded rule":  {`repeated string a = 1 [(buf.validate.field).repeated = {max_items: 100, items: {string: {max_len: 100}}}]; option (buf.validate.message).cel = {id: "fair", expression: "this.a.all(x, this.a.exists_one(y, x == y))"};`, ""},
		"a long pattern":  {`string name = 1 [(buf.validate.field).string = {max_len: 10, pattern: "` + strings.Repeat("x", 2100) + `"}];`, "the pattern of example.Gadget.name is 2100 bytes long, and 2048 are allowed"},
		"a dear pattern":  {`string name = 1 [(buf.validate.field).string.pattern = "(a{1000}b{1000}|c)*"];`, "the pattern of example.Gadget.name: it may take 2104"},
		"of a few bytes":  {`string name = 1 [(buf.validate.field).string = {max_len: 1000, pattern: "(a{1000}b{1000}|c)*"}];`, ""},
		"a common one":    {`string name = 1 [(buf.validate.field).string.pattern = "^[0-9a-f]{64}$"];`, ""},
		"no pattern":      {`string name = 1 [(buf.validate.field).string = {max_len: 10, pattern: "("}];`, "the pattern of example.Gadget.name: error parsing regexp"},
		"of elements":     {`repeated string a = 1 [(buf.validate.field).repeated.items.string.pattern = "a{1000}b{1000}"];`, "the pattern of example.Gadget.a: it may take"},
		"of keys":         {`map<string, bytes> a = 1 [(buf.validate.field).map = {keys: {string: {max_len: 10}}, values: {bytes: {pattern: "a{1000}b{1000}"}}}];`, "the pattern of example.Gadget.a: it may take"},
		"a rule of items": {`repeated string a = 1 [(buf.validate.field).repeated.items.cel = {id: "item", expression: "this +"}];`, `rule "item"`},
	} {
		s := newState("")
		err := define(s, gadgets(t, c.body))
		if c.want == "" && err != nil || c.want != "" && (!errors.Is(err, state.ErrInvalid) || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v; want %q", name, err, c.want)
		}
		if c.want != "" && s.Definition("Gadgets.example.org") != nil {
			t.Errorf("%s: the kind is known all the same", name)
		}
	}
	huge := gadgets(t, "string name = 1;")
	padding, _ := proto.Marshal(&descriptorpb.FileDescriptorSet{File: []*descriptorpb.FileDescriptorProto{{Name: proto.String(strings.Repeat("x", 600<<10))}}})
	huge.Descriptors = append(huge.Descriptors, padding...)
	if err := define(newState(""), huge); !errors.Is(err, state.ErrInvalid) || !strings.Contains(err.Error(), "bytes, and 524288 are allowed") {
		t.Errorf("large descriptors: %v", err)
	}
}

// reopen is a schema in front of a log in a directory, as the runtime puts one there.
func reopen(t *testing.T, dir string) (*schema.State, *log.Store) {
	t.Helper()
	store, err := log.Open(dir, log.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	durable := map[string]state.State{"config": store, "meta": store}
	s := schema.New(router.New(memory.New(memory.Options{}), durable), builtin.Set(), "")
	if err := s.Recover(t.Context()); err != nil {
		t.Fatal(err)
	}
	return s, store
}

func TestDefinitionsOutliveTheRuntime(t *testing.T) {
	dir := t.TempDir()
	t.Run("first", func(t *testing.T) {
		s, store := reopen(t, dir)
		if err := define(s, gadgets(t, body)); err != nil {
			t.Fatal(err)
		}
		if err := create(s, "a", "name: x"); err != nil {
			t.Fatal(err)
		}
		if _, err := s.List(t.Context(), schema.Definitions, state.Query{}); err != nil { // which publishes those of the image
			t.Fatal(err)
		}
		gone := resource("meta", schema.Definitions.Type, "olds.example.org", "", &metapb.ResourceDefinitionSpec{ResourceType: "Olds.example.org"})
		if _, err := store.Create(t.Context(), gone, state.WriteOptions{Owner: output.Owner}); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("again", func(t *testing.T) {
		s, _ := reopen(t, dir)
		if err := create(s, "b", "name: y"); err != nil {
			t.Errorf("a kind that was defined before: %v", err)
		}
		if err := create(s, "c", "size: big"); !errors.Is(err, state.ErrInvalid) {
			t.Errorf("a wrong type: %v; want ErrInvalid", err)
		}
		if err := define(s, gadgets(t, body+" string more = 8;")); err != nil {
			t.Errorf("a compatible change: %v", err)
		}
		if _, err := s.Get(t.Context(), state.Pointer{Kind: schema.Definitions, ID: "olds.example.org"}); !errors.Is(err, state.ErrNotFound) {
			t.Errorf("a definition of an image that is gone: %v; want ErrNotFound", err)
		}
	})
}

// TestARuleDoesNotSayASecretAloud: an expression may make a sentence of what it judges.
func TestARuleDoesNotSayASecretAloud(t *testing.T) {
	const body = `string key = 1 [(buf.validate.field).cel = {id: "key.short", expression: "size(this) < 4 ? '' : 'not ' + this"}, (buf.validate.field).string.max_len = 100];`
	for _, sensitive := range []bool{false, true} {
		s := schema.New(memory.New(memory.Options{}), builtin.Set(), "")
		d := gadgets(t, body)
		if sensitive {
			d.Sensitivity = metapb.ResourceDefinitionSpec_SENSITIVE
		}
		if err := define(s, d); err != nil {
			t.Fatal(err)
		}
		want := "spec.key: not xyzzy"
		if sensitive {
			want = `spec.key: breaks the rule "key.short"`
		}
		if err := create(s, "a", "key: xyzzy"); err == nil || err.Error() != want {
			t.Errorf("sensitive %v: %v; want %s", sensitive, err, want)
		}
	}
}

func TestWhatIsSecretStaysSo(t *testing.T) {
	s := schema.New(memory.New(memory.Options{}), builtin.Set(), "")
	secret := gadgets(t, body)
	secret.Sensitivity = metapb.ResourceDefinitionSpec_SENSITIVE
	if err := define(s, secret); err != nil {
		t.Fatal(err)
	}
	if err := create(s, "a", "name: x"); err != nil {
		t.Fatal(err)
	}
	if err := define(s, gadgets(t, body)); !errors.Is(err, state.ErrInvalid) || !strings.Contains(err.Error(), "spec.sensitivity: is taken away") {
		t.Errorf("a definition without sensitivity: %v", err)
	}
}

// TestADefinitionThatIsOfNoUseStaysSensitive: its resources are as they were, and they can be read, watched and removed by who may.
func TestADefinitionThatIsOfNoUseStaysSensitive(t *testing.T) {
	secret := gadgets(t, body)
	secret.Sensitivity = metapb.ResourceDefinitionSpec_SENSITIVE
	content, err := proto.Marshal(secret)
	if err != nil {
		t.Fatal(err)
	}
	open := gadgets(t, body)
	open.Aliases = []string{"mount"} // the image's
	for name, c := range map[string]struct {
		content   *resourcepb.Spec
		sensitive bool
	}{
		"taken alias":    {&resourcepb.Spec{ProtoSpec: marshal(t, open)}, false},
		"no descriptors": {&resourcepb.Spec{ProtoSpec: marshal(t, &metapb.ResourceDefinitionSpec{ResourceType: secret.ResourceType, DefaultNamespace: "config", Sensitivity: secret.Sensitivity})}, true},
		"cut short":      {&resourcepb.Spec{ProtoSpec: content[:len(content)-1]}, true},
	} {
		store := memory.New(memory.Options{})
		definition := resource("meta", schema.Definitions.Type, gadgetID, "", nil)
		definition.Spec = c.content
		gadget := resource("config", "Gadgets.example.org", "a", "", nil)
		for _, r := range []*resourcepb.Resource{definition, gadget} {
			if _, err := store.Create(t.Context(), r, state.WriteOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		s := schema.New(store, builtin.Set(), "")
		if err := s.Recover(t.Context()); err != nil {
			t.Fatal(err)
		}
		d := s.Definition("Gadgets.example.org")
		if sensitive := d.GetSensitivity() == metapb.ResourceDefinitionSpec_SENSITIVE; d == nil || sensitive != c.sensitive {
			t.Errorf("%s: the definition is %v; want sensitive %v", name, d, c.sensitive)
		}
		if err := create(s, "b", "name: x"); !errors.Is(err, state.ErrInvalid) || !strings.Contains(err.Error(), "its definition is of no use") {
			t.Errorf("%s: a write: %v; want why not", name, err)
		}
		if _, err := s.Watch(t.Context(), state.WatchRequest{Kind: state.Kind{Namespace: "config", Type: "Gadgets.example.org"}}); err != nil && name != "cut short" {
			t.Errorf("%s: a watch: %v", name, err)
		}
		for _, r := range []*resourcepb.Resource{gadget, definition} {
			if err := s.Destroy(t.Context(), state.PointerTo(r), state.WriteOptions{}); err != nil {
				t.Errorf("%s: %s cannot be removed: %v", name, state.PointerTo(r), err)
			}
		}
		if d := s.Definition("Gadgets.example.org"); d != nil {
			t.Errorf("%s: removed, and still there: %v", name, d)
		}
	}
}

func marshal(t *testing.T, m proto.Message) []byte {
	t.Helper()
	data, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// slow holds writes of a kind until they may go on.
type slow struct {
	state.State
	begun, may chan struct{}
}

func (s slow) Create(ctx context.Context, r *resourcepb.Resource, o state.WriteOptions) (*resourcepb.Resource, error) {
	if r.GetMetadata().GetType() == "Gadgets.example.org" {
		close(s.begun)
		<-s.may
	}
	return s.State.Create(ctx, r, o)
}

// TestADefinitionDoesNotChangeUnderAWrite: what was judged by one definition is not committed under another, nor under none.
func TestADefinitionDoesNotChangeUnderAWrite(t *testing.T) {
	for name, change := range map[string]func(state.State) error{
		"another definition": func(s state.State) error {
			return define(s, gadgets(t, strings.Replace(body, "int32 size", "string size", 1)))
		},
		"none": func(s state.State) error {
			return s.Destroy(t.Context(), state.Pointer{Kind: schema.Definitions, ID: gadgetID}, state.WriteOptions{})
		},
	} {
		store := slow{memory.New(memory.Options{}), make(chan struct{}), make(chan struct{})}
		s := schema.New(store, builtin.Set(), "")
		if err := define(s, gadgets(t, body)); err != nil {
			t.Fatal(err)
		}
		wrote, changed := make(chan error, 1), make(chan error, 1)
		go func() { wrote <- create(s, "a", "size: 3") }()
		<-store.begun
		go func() { changed <- change(s) }()
		select {
		case err := <-changed:
			t.Errorf("%s: %v before the write has ended", name, err)
			close(store.may)
		case <-time.After(200 * time.Millisecond):
			close(store.may)
			if err := <-changed; !errors.Is(err, state.ErrInvalid) || !strings.Contains(err.Error(), "1 resources of") {
				t.Errorf("%s: %v; want that it does not fit the resource", name, err)
			}
		}
		if err := <-wrote; err != nil {
			t.Errorf("%s: the write: %v", name, err)
		}
	}
}

func TestADefinitionKeepsItsType(t *testing.T) {
	s := newState("")
	if err := define(s, gadgets(t, body)); err != nil {
		t.Fatal(err)
	}
	other := gadgets(t, body)
	other.ResourceType = "GADGETS.example.org"
	if err := define(s, other); !errors.Is(err, state.ErrInvalid) || !strings.Contains(err.Error(), `the kind that is there is "Gadgets.example.org"`) {
		t.Errorf("another type under the same id: %v", err)
	}
}
