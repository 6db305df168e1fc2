package vmtest_test

import (
	"path/filepath"
	"strings"
	"testing"

	machinepb "github.com/cosi-os/cosi/api/cosi/machine/v1alpha1"
	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	"github.com/cosi-os/cosi/hack/versions"
)

// Two versions of the kinds that a plugin brings: in the second a field has a new name, one is new, and a kind is gone.
const (
	workshopBefore = `
message Widget {
  option (cosi.resource.meta.kind) = {resource_type: "Widgets.example.org", display_type: "Widget", default_namespace: "config"};
  string size = 1;
}
message Gadget {
  option (cosi.resource.meta.kind) = {resource_type: "Gadgets.example.org", display_type: "Gadget", default_namespace: "config"};
  string key = 1;
}`
	workshopAfter = `
message Widget {
  option (cosi.resource.meta.kind) = {resource_type: "Widgets.example.org", display_type: "Widget", default_namespace: "config"};
  string extent = 1 [json_name = "size"];
  string finish = 2;
}`
)

// workshop makes a system extension that brings kinds, below the directory of the versions.
func (u *upgrading) workshop(t *testing.T, version, source string) {
	t.Helper()
	if err := versions.Extension(t.Context(), filepath.Join("..", ".."), filepath.Join(u.dir, version, "workshop"), source); err != nil {
		t.Fatal(err)
	}
}

// migrates: the node goes to a version with other kinds, and back. Neither loses what the other has written.
func (u *upgrading) migrates(t *testing.T) {
	u.Apply(t, widget("old", "size: small")+"---\n"+widget("changed", "size: small")+
		"---\nmetadata: {type: Gadgets.example.org, id: a}\nspec: {key: x}\n")
	u.shows(t, "widget/changed", "size: small")
	u.workshop(t, "after", workshopAfter)
	after := u.build(t, "after", "extensions: [after/workshop]")
	u.cosictl(t, "upgrade", after)
	u.runs(t, "root-a", "root-b")
	u.shows(t, "widget/old", "extent: small")
	u.Apply(t, widget("changed", "extent: large")+"---\n"+widget("document", "size: medium")+"---\n"+widget("new", "extent: large, finish: matt"))
	u.shows(t, "widget/document", "extent: medium")
	u.holds(t, "Gadgets.example.org", "a", "key: x\n")
	s := &machinepb.StateStatus{}
	u.Until(t, "state", "state", s, func(*resourcepb.Metadata) bool {
		return s.GetDurable() && s.GetMessage() == "Gadgets.example.org: this image does not have the kind, and 1 resources are of before"
	})

	from := u.Console.Position()
	u.cosictl(t, "rollback")
	u.Expect(t, from, `engine: this boot is a trial of version`)
	u.runs(t, "root-b", "root-a")
	for id, size := range map[string]string{"old": "small", "changed": "large", "document": "medium", "new": "large"} {
		u.shows(t, "widget/"+id, "size: "+size)
		u.holds(t, "Widgets.example.org", id, "size: "+size+"\n")
	}
	u.shows(t, "gadget/a", "key: x")
	u.Apply(t, "metadata: {type: Gadgets.example.org, id: a}\nspec: {key: z}\n")
}

// widget is a document.
func widget(id, spec string) string {
	return "metadata: {type: Widgets.example.org, id: " + id + "}\nspec: {" + spec + "}\n"
}

// shows fails the test unless cosictl does.
func (u *upgrading) shows(t *testing.T, resource, field string) {
	t.Helper()
	if text := u.outside.cosictl(t, "get", resource, "-o", "yaml"); !strings.Contains(text, "\nspec:\n  "+field+"\n") {
		t.Errorf("%s is\n%s\nwant %s", resource, text, field)
	}
}

// holds fails the test unless the node sends a resource in these words, whether or not it has the kind.
func (u *upgrading) holds(t *testing.T, typ, id, yaml string) {
	t.Helper()
	got, err := u.Client.State.Get(u.Patience(t, patience), &resourcepb.GetRequest{Namespace: "config", Type: typ, Id: id})
	if text := got.GetResource().GetSpec().GetYamlSpec(); err != nil || text != yaml {
		t.Errorf("%s/%s is %q, %v; want %q", typ, id, text, err, yaml)
	}
}
