package jsonschema_test

import (
	"encoding/json"
	"strings"
	"testing"

	"buf.build/go/protovalidate"
	validator "github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/cosi-os/cosi/api/document"
	"github.com/cosi-os/cosi/api/kinds"
	"github.com/cosi-os/cosi/api/kinds/builtin"
	"github.com/cosi-os/cosi/tools/jsonschema"
)

func compile(t *testing.T, all ...*kinds.Kind) *validator.Schema {
	t.Helper()
	text, err := json.Marshal(jsonschema.Of(all...))
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := validator.UnmarshalJSON(strings.NewReader(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	c := validator.NewCompiler()
	if err := c.AddResource("schema.json", parsed); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("schema.json")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// ours judges a document as cosictl and the node do.
func ours(t *testing.T, text string) error {
	t.Helper()
	documents, problems := document.Parse("test", []byte(text))
	if len(problems) > 0 {
		return errorf(problems[0].String())
	}
	set := builtin.Set()
	r, problems := documents[0].Resolve(set)
	if len(problems) > 0 {
		return errorf(problems[0].String())
	}
	m, err := set.ByType(r.GetMetadata().GetType()).Unmarshal(r.GetSpec().GetProtoSpec())
	if err != nil {
		return err
	}
	return protovalidate.Validate(m.Interface())
}

type errorf string

func (e errorf) Error() string { return string(e) }

func TestBothJudgesAgree(t *testing.T) {
	whole := compile(t, builtin.Set().All()...)
	for _, c := range []struct {
		text string
		good bool
	}{
		{`{"metadata": {"type": "mount", "id": "a"}, "spec": {"source": "/dev/vdb", "target": "/var/a", "fstype": "ext4", "flags": ["ro"]}}`, true},
		{`{"metadata": {"type": "MountPoints.storage.cosi.dev", "id": "a", "labels": {"a": "b"}}, "spec": {"source": "tmpfs", "target": "/var/a", "fstype": "tmpfs"}}`, true},
		{`{"metadata": {"type": "mount", "id": "a"}, "spec": {"target": "/var/a", "fstype": "ext4"}}`, false},
		{`{"metadata": {"type": "mount", "id": "a"}}`, false},
		{`{"metadata": {"type": "mount"}, "spec": {"source": "/dev/vdb", "target": "/var/a", "fstype": "ext4"}}`, false},
		{`{"metadata": {"type": "mount", "id": "a"}, "spec": {"source": "/dev/vdb", "target": "/var/a", "fstype": "ext4", "flag": []}}`, false},
		{`{"metadata": {"type": "mount", "id": "a"}, "spec": {"source": "/dev/vdb", "target": 1, "fstype": "ext4"}}`, false},
		{`{"metadata": {"type": "mount", "id": "a"}, "spec": {"source": "/dev/vdb", "target": "/var/a", "fstype": "ext4", "flags": "ro"}}`, false},
		{`{"metadata": {"type": "nothing", "id": "a"}}`, false},
		{`{"metadata": {"type": "mount", "id": "a", "namespace": "status"}, "spec": {"source": "/dev/vdb", "target": "/var/a", "fstype": "ext4"}}`, false},
		{`{"metadata": {"type": "certs", "id": "node"}, "spec": {"client_cas": ["x"]}}`, true},
		{`{"metadata": {"type": "certs", "id": "node"}, "spec": {}}`, false},
		{`{"metadata": {"type": "certs", "id": "node"}, "spec": {"client_cas": ["x"], "revoked": ["nohex"]}}`, false},
		{`{"metadata": {"type": "limits", "id": "node"}, "spec": {"calls": 20}}`, true},
		{`{"metadata": {"type": "limits", "id": "node"}, "spec": {"calls": 0}}`, true},
		{`{"metadata": {"type": "limits", "id": "node"}, "spec": {}}`, true},
		{`{"metadata": {"type": "limits", "id": "node"}, "spec": {"calls": 2}}`, false},
		{`{"metadata": {"type": "limits", "id": "node"}, "spec": {"calls": -20}}`, false},
		{`{"metadata": {"type": "role", "id": "a"}, "spec": {"names": ["a"], "rules": [{"verbs": ["get"], "kinds": ["*"]}]}}`, true},
		{`{"metadata": {"type": "role", "id": "a"}, "spec": {"names": ["a"], "rules": [{"verbs": ["read"], "kinds": ["*"]}]}}`, false},
		{`{"metadata": {"type": "role", "id": "a"}, "spec": {"names": ["a"], "rules": [{"kinds": ["*"]}]}}`, false},
		{`{"metadata": {"type": "shutdown", "id": "a"}, "spec": {"action": "REBOOT"}}`, true},
		{`{"metadata": {"type": "shutdown", "id": "a"}, "spec": {"action": "EXPLODE"}}`, false},
		{`{"metadata": {"type": "certstatus", "id": "node"}, "spec": {"not_after": "2026-01-01T00:00:00Z", "revoked": 3}}`, true},
		{`{"metadata": {"type": "certstatus", "id": "node"}, "spec": {"not_after": {"seconds": 1}}}`, false},
		{`{"metadata": {"type": "log", "id": "a"}, "spec": {"sequence": "12", "fields": {"any": ["thing"]}}}`, true},
		{`{"metadata": {"type": "log", "id": "a"}, "spec": {"sequence": "x"}}`, false},
	} {
		err := ours(t, c.text)
		if (err == nil) != c.good {
			t.Errorf("%s: we say %v", c.text, err)
		}
		parsed, err := validator.UnmarshalJSON(strings.NewReader(c.text))
		if err != nil {
			t.Fatal(err)
		}
		if err := whole.Validate(parsed); (err == nil) != c.good {
			t.Errorf("%s: the schema says %v", c.text, err)
		}
	}
}

// TestEveryKindCompiles: alone as well as among all, and an empty document of none is taken for one of another.
func TestEveryKindCompiles(t *testing.T) {
	for _, k := range builtin.Set().All() {
		s := compile(t, k)
		if err := s.Validate(map[string]any{"metadata": map[string]any{"type": "Nothing.example.org", "id": "a"}, "spec": map[string]any{}}); err == nil {
			t.Errorf("%s: a document of another kind is taken", k.Type())
		}
	}
}
