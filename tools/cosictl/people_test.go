package main

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	machinepb "github.com/cosi-os/cosi/api/cosi/machine/v1alpha1"
	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	metapb "github.com/cosi-os/cosi/api/cosi/resource/meta"
	servicepb "github.com/cosi-os/cosi/api/cosi/service/v1alpha1"
	storagepb "github.com/cosi-os/cosi/api/cosi/storage/v1alpha1"
	"github.com/cosi-os/cosi/api/kinds"
	"github.com/cosi-os/cosi/api/kinds/builtin"
	"github.com/cosi-os/cosi/api/kinds/descriptors"
	"github.com/cosi-os/cosi/tools/client"
)

// mountDocument is a MountPoint with an id and a source.
func mountDocument(id, source string) string {
	return fmt.Sprintf("metadata: {type: mount, id: %s}\nspec: {source: %s, target: /var/%s, fstype: ext4}\n", id, source, id)
}

func TestDiffShowsWhatApplyWouldChange(t *testing.T) {
	p := newPerson(t, "unix://"+startRuntime(t))
	p.want(exitOK, "apply", "-f", p.file("mount.yaml", mountYAML))
	if text := p.want(exitOK, "diff", "-f", p.file("mount.yaml", mountYAML)); text != "" {
		t.Errorf("the same: %q", text)
	}
	p.file("mount.yaml", strings.NewReplacer("nodev", "nosuid", "tier: db", "tier: web").Replace(mountYAML))
	p.file("more.yaml", mountDocument("more", "/dev/vdc"))
	var said strings.Builder
	said.WriteString(p.want(exitError, "diff", "-f", p.home+"/mount.yaml", "-f", p.home+"/more.yaml"))
	p.want(exitUsage, "diff", "-f", p.file("bad.yaml", "metadata: {type: mount, id: a}\nspec: {sauce: x}\n"))
	secret := "metadata: {type: certs, id: node}\nspec: {client_cas: [%s], serving_key: %s}\n"
	p.want(exitOK, "apply", "-f", p.file("certs.yaml", fmt.Sprintf(secret, "a", "xyzzy")))
	said.WriteString(p.want(exitError, "diff", "-f", p.file("certs.yaml", fmt.Sprintf(secret, "a", "yzzyx"))))
	golden(t, "diff", p.timeless(said.String()))
	if strings.Contains(said.String(), "xyzzy") || strings.Contains(said.String(), "yzzyx") {
		t.Error("a secret is shown")
	}
	nobody := newPerson(t, "unix:///nowhere")
	nobody.want(exitUsage, "diff", "-f", p.home+"/mount.yaml")
}

func TestASetIsPruned(t *testing.T) {
	p := newPerson(t, "unix://"+startRuntime(t))
	p.want(exitOK, "apply", "-f", p.file("others.yaml", mountDocument("mine", "/dev/vda")))
	p.want(exitOK, "apply", "-f", p.file("others.yaml", mountDocument("theirs", "/dev/vdb")), "--set", "other")
	one, two := mountDocument("one", "/dev/vdc"), mountDocument("two", "/dev/vdd")
	p.want(exitOK, "apply", "-f", p.file("site.yaml", one+"---\n"+two), "--set", "site")
	p.file("site.yaml", one)
	if text := p.want(exitOK, "apply", "-f", p.home+"/site.yaml", "--set", "site", "--prune", "--dry-run"); text != "mountpoint/one unchanged (dry run)\nmountpoint/two deleted (dry run)\n" {
		t.Errorf("dry run: %q", text)
	}
	if text := p.want(exitError, "diff", "-f", p.home+"/site.yaml", "--set", "site", "--prune"); !strings.Contains(text, "+++ pruned: mountpoint/two") {
		t.Errorf("diff: %q", text)
	}
	if text := p.want(exitOK, "apply", "-f", p.home+"/site.yaml", "--set", "site", "--prune"); text != "mountpoint/one unchanged\nmountpoint/two deleted\n" {
		t.Errorf("said %q", text)
	}
	for _, id := range []string{"mine", "theirs", "one"} {
		p.want(exitOK, "get", "mount", id)
	}
	// An apply that does not speak of sets leaves the resource in its set; one that does cannot take it out of another.
	p.want(exitOK, "apply", "-f", p.file("others.yaml", mountDocument("theirs", "/dev/vde")))
	if text := p.want(exitError, "apply", "-f", p.home+"/others.yaml", "--set", "site"); !strings.Contains(text, `belongs to the set "other"`) {
		t.Errorf("said %q", text)
	}
	p.want(exitUsage, "apply", "-f", p.home+"/site.yaml", "--prune")
}

// widgets is the definition of a kind of somebody else with a MountPoint's content.
func widgets(t *testing.T) string {
	t.Helper()
	return widgetsIn(t, "config")
}

// widgetsIn is the same of a namespace.
func widgetsIn(t *testing.T, namespace string, aliases ...string) string {
	t.Helper()
	mount, err := builtin.Set().Lookup("mount")
	if err != nil {
		t.Fatal(err)
	}
	widget, err := kinds.New(&metapb.ResourceDefinitionSpec{
		ResourceType: "Widgets.example.com", DisplayType: "Widget", DefaultNamespace: namespace, Aliases: aliases, Description: "Somebody else's",
	}, mount.Message)
	if err != nil {
		t.Fatal(err)
	}
	d, err := descriptors.Definition(widget)
	if err != nil {
		t.Fatal(err)
	}
	spec, err := kinds.EncodeMessage(d.ProtoReflect())
	if err != nil {
		t.Fatal(err)
	}
	return "metadata: {type: rd, id: widgets.example.com}\nspec:\n  " + strings.ReplaceAll(strings.TrimSpace(spec), "\n", "\n  ") + "\n"
}

func TestAKindAndItsResourcesInOneApply(t *testing.T) {
	p := newPerson(t, "unix://"+startRuntime(t))
	widget := strings.Replace(mountYAML, "type: mount", "type: widget", 1)
	bad := strings.Replace(widget, "source:", "sauce:", 1)
	if text := p.want(exitError, "apply", "-f", p.file("all.yaml", bad+"---\n"+widgets(t))); !strings.Contains(text, "spec.sauce: unknown field") {
		t.Errorf("said %q", text)
	}
	p.want(exitError, "get", "widgets")
	p.file("all.yaml", widget+"---\n"+widgets(t))
	p.want(exitOK, "validate", "-f", p.home+"/all.yaml")
	if text := p.want(exitOK, "apply", "-f", p.home+"/all.yaml"); text != "resourcedefinition/widgets.example.com created\nwidget/data created\n" {
		t.Errorf("said %q", text)
	}
	if text := p.want(exitOK, "apply", "-f", p.home+"/all.yaml"); text != "resourcedefinition/widgets.example.com unchanged\nwidget/data unchanged\n" {
		t.Errorf("again: %q", text)
	}
}

// TestAResourceOfANewKindIsRefusedBeforeTheKindIsThere: rights, limits and what is being deleted are the node's to know.
func TestAResourceOfANewKindIsRefusedBeforeTheKindIsThere(t *testing.T) {
	p := startGate(t).local(newPerson(t, ""))
	widget := strings.Replace(mountYAML, "type: mount", "type: widget", 1)
	large := strings.Replace(widget, "labels:", "annotations: {note: "+strings.Repeat("x", 2<<20)+"}\n  labels:", 1)
	for want, files := range map[string]string{
		`resources of the namespace "status" are written by their owners`: widgetsIn(t, "status") + "---\n" + widget,
		"and a resource may have 1048576":                                 widgets(t) + "---\n" + large,
	} {
		if text := p.want(exitError, "apply", "-f", p.file("all.yaml", files)); !strings.Contains(text, want) || !strings.Contains(text, "nothing is written: 1 resource of 2 cannot be") {
			t.Errorf("said %.1000q; want %q", text, want)
		}
		p.want(exitError, "get", "rd", "widgets.example.com")
	}

	all := p.file("all.yaml", widgets(t)+"---\n"+widget)
	if text := p.want(exitOK, "apply", "-f", all, "--dry-run"); text != "resourcedefinition/widgets.example.com created (dry run)\nwidget/data created (dry run)\n" {
		t.Errorf("dry run: %q", text)
	}
	p.want(exitOK, "apply", "-f", all)
	p.file("all.yaml", widgetsIn(t, "config", "gadget")+"---\n"+strings.Replace(widget, "nodev", "nosuid", 1))
	if text := p.want(exitOK, "apply", "-f", all, "--dry-run"); text != "resourcedefinition/widgets.example.com updated (dry run)\nwidget/data updated (dry run)\n" {
		t.Errorf("dry run of changes: %q", text)
	}
	hold(t, p.endpoint, "widget", "data")
	p.want(exitTimeout, "delete", "widget", "data", "--timeout", "3s") // the deletion has to be on the disk by then
	if text := p.want(exitError, "apply", "-f", all); !strings.Contains(text, "widget/data: is being deleted") || !strings.Contains(text, "nothing is written") {
		t.Errorf("said %q", text)
	}
	p.want(exitError, "get", "gadget", "data")
}

// TestOneRefusedDocumentKeepsTheOthersFromBeingWritten: it is the node that refuses, and only the last.
func TestOneRefusedDocumentKeepsTheOthersFromBeingWritten(t *testing.T) {
	p := newPerson(t, "unix://"+startRuntime(t))
	p.want(exitOK, "apply", "-f", p.file("held.yaml", mountDocument("held", "/dev/vda")))
	hold(t, p.endpoint, "mount", "held")
	p.want(exitTimeout, "delete", "mount", "held", "--timeout", "100ms")
	text := p.want(exitError, "apply", "-f", p.file("all.yaml", mountDocument("new", "/dev/vdb")+"---\n"+mountDocument("held", "/dev/vdc")))
	if !strings.Contains(text, "mountpoint/held: is being deleted") || !strings.Contains(text, "nothing is written: 1 resource of 2 cannot be") {
		t.Errorf("said %q", text)
	}
	p.want(exitError, "get", "mount", "new")
}

func TestWaitForConditions(t *testing.T) {
	p := newPerson(t, "unix://"+startRuntime(t))
	if text := p.want(exitTimeout, "wait", "mount/data", "--timeout", "200ms"); !strings.Contains(text, "mountpoint/data is not ready within 200ms: it is not there") {
		t.Errorf("said %q", text)
	}
	p.want(exitOK, "wait", "mount/data", "--for", "deleted")
	p.want(exitOK, "apply", "-f", p.file("mount.yaml", mountYAML))
	if text := p.want(exitTimeout, "wait", "mount", "data", "--timeout", "200ms"); !strings.Contains(text, "mountpoint/data is not ready: no status yet") {
		t.Errorf("said %q", text)
	}
	waiter := newPerson(t, p.endpoint)
	done := make(chan int)
	go func() { done <- waiter.run("wait", "mount/data", "mount/more", "--timeout", "30s") }()
	for _, id := range []string{"data", "more"} {
		p.want(exitOK, "apply", "-f", p.file("more.yaml", mountDocument("more", "/dev/vdc")))
		p.want(exitOK, "apply", "-f", p.file("status.yaml", "metadata: {type: mountstatus, id: "+id+"}\nspec: {observed_version: '1', ready: true, reason: Mounted}\n"))
	}
	if code := <-done; code != exitOK || waiter.out.String() != "mountpoint/data ready\nmountpoint/more ready\n" {
		t.Errorf("exit code %d, %s%s", code, waiter.out, waiter.err)
	}
	p.want(exitOK, "apply", "-f", p.file("refused.yaml", "metadata: {type: mountstatus, id: more}\nspec: {observed_version: '9', ready: false, reason: Refused, message: not today}\n"))
	if text := p.want(exitError, "wait", "mount/more", "--timeout", "30s"); !strings.Contains(text, "mountpoint/more: Refused: not today") {
		t.Errorf("said %q", text)
	}
	p.want(exitOK, "wait", "mountstatus/data", "--for", ".spec.reason=Mounted")
	p.want(exitTimeout, "wait", "mountstatus/data", "--for", ".spec.reason=Else", "--timeout", "100ms")
	p.want(exitUsage, "wait", "mountstatus/data", "--for", ".spec.raison=Mounted")
	p.want(exitUsage, "wait", "mountstatus/data", "--for", "happiness")
	p.want(exitUsage, "wait", "mount")
}

// write writes a resource as its owner, as plugins and the runtime do.
func (p *person) write(owner string, kind, id string, annotations map[string]string, spec proto.Message) {
	p.t.Helper()
	c, err := client.Dial(client.Context{Endpoint: p.endpoint})
	if err != nil {
		p.t.Fatal(err)
	}
	defer c.Close()
	k, err := c.Kind(p.t.Context(), kind)
	if err != nil {
		p.t.Fatal(err)
	}
	content, err := proto.Marshal(spec)
	if err != nil {
		p.t.Fatal(err)
	}
	_, err = c.State.Create(p.t.Context(), &resourcepb.CreateRequest{Options: &resourcepb.CreateOptions{Owner: owner}, Resource: &resourcepb.Resource{
		Metadata: &resourcepb.Metadata{Namespace: k.Namespace(), Type: k.Type(), Id: id, Owner: owner, Phase: "running", Annotations: annotations},
		Spec:     &resourcepb.Spec{ProtoSpec: content},
	}})
	if err != nil {
		p.t.Fatal(err)
	}
}

var agesAgo = regexp.MustCompile(`\S+ ago`)

func TestWhyFollowsTheChain(t *testing.T) {
	p := newPerson(t, "unix://"+startRuntime(t))
	var said strings.Builder
	why := func(args ...string) {
		said.WriteString("$ cosictl why " + strings.Join(args, " ") + "\n" + p.want(exitOK, append([]string{"why"}, args...)...))
	}
	p.want(exitOK, "apply", "-f", p.file("mount.yaml", mountYAML))
	why("mount", "data")
	p.write("runtime", "pluginstatus", "mount", nil, &servicepb.PluginStatus{State: "BackOff", Message: "exit 1", Controllers: []*servicepb.PluginStatus_Controller{
		{Name: "mounts", Inputs: []string{"MountPoints.storage.cosi.dev"}, Outputs: []string{"MountPointStatuses.storage.cosi.dev"}},
	}})
	why("mount/data")
	p.write("mount", "mountstatus", "data", map[string]string{annotationCause: "MountPoints.storage.cosi.dev/data@1"},
		&storagepb.MountPointStatus{ObservedVersion: "1", Reason: "SourceMissing", Message: "no such device"})
	p.write("network", "linkstatus", "eth0", map[string]string{annotationCause: "MountPoints.storage.cosi.dev/data@1"}, &storagepb.MountPointStatus{})
	p.write("runtime", "auditrecords", "000000000001", nil, &machinepb.AuditRecord{
		Outcome: "Committed", Verb: "update", Type: "MountPoints.storage.cosi.dev", Id: "data", Who: &machinepb.AuditRecord_Who{Name: "ann", Role: "operator"},
	})
	hold(t, p.endpoint, "mount", "data")
	why("mount/data")
	why("mountstatus/data")
	p.write("", "mount", "logs", map[string]string{provenance: "userdata/fw_cfg@0123456789ab"}, &storagepb.MountPoint{Source: "tmpfs", Target: "/var/logs", Fstype: "tmpfs"})
	why("mount/logs", "-o", "json")
	golden(t, "why", agesAgo.ReplaceAllString(said.String(), "LONG ago"))
}

func TestExportIsTheSameOnAFreshNode(t *testing.T) {
	p := newPerson(t, "unix://"+startRuntime(t))
	p.want(exitOK, "apply", "-f", p.file("all.yaml", mountYAML+"---\n"+mountDocument("b", "/dev/vdb")+"---\n"+widgets(t)+"---\n"+strings.Replace(mountYAML, "type: mount", "type: widget", 1)))
	p.want(exitOK, "apply", "-f", p.file("certs.yaml", "metadata: {type: certs, id: node}\nspec: {client_cas: [a], serving_key: xyzzy}\n"))
	p.write("", "mount", "logs", map[string]string{provenance: "userdata/fw_cfg@0123456789ab"}, &storagepb.MountPoint{Source: "tmpfs", Target: "/var/logs", Fstype: "tmpfs"})
	p.write("userdata", "userdatarecords", "fw_cfg", nil, &machinepb.UserDataRecord{})
	text := p.want(exitOK, "export")
	if strings.Contains(text, "xyzzy") || !strings.Contains(text, "# Certificates.machine.cosi.dev are sensitive and left out.") || strings.Contains(text, "UserDataRecords") || strings.Contains(text, "provenance") {
		t.Errorf("export:\n%s", text)
	}
	whole := p.want(exitOK, "export", "--include-secrets")
	if !strings.Contains(whole, "xyzzy") {
		t.Errorf("with secrets:\n%s", whole)
	}
	fresh := newPerson(t, "unix://"+startRuntime(t))
	fresh.want(exitOK, "apply", "-f", fresh.file("whole.yaml", whole))
	if again := fresh.want(exitOK, "export", "--include-secrets"); again != whole {
		t.Errorf("a fresh node exports\n%s\nwant\n%s", again, whole)
	}
	fresh.want(exitOK, "diff", "-f", fresh.home+"/whole.yaml")
}

func TestAWatchGoesOnAfterARestart(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	stop := startAt(t, socket)
	p := newPerson(t, "unix://"+socket)
	p.want(exitOK, "apply", "-f", p.file("one.yaml", mountDocument("one", "/dev/vda")))
	ctx, interrupt := context.WithCancel(t.Context())
	watcher, table := newPerson(t, p.endpoint), newPerson(t, p.endpoint)
	done := make(chan int)
	go func() { done <- watcher.runFor(ctx, "watch", "mounts") }()
	go func() { done <- table.runFor(ctx, "get", "mounts", "-w") }()
	p.eventually(func() bool {
		return strings.Contains(watcher.out.String(), `"id":"one"`) && strings.Contains(table.out.String(), "one")
	})
	stop()
	t.Cleanup(startAt(t, socket))
	p.want(exitOK, "apply", "-f", p.file("two.yaml", mountDocument("two", "/dev/vdb")))
	p.eventually(func() bool {
		return strings.Contains(watcher.out.String(), `"id":"two"`) && strings.Contains(table.out.String(), "two")
	})
	interrupt()
	for range 2 {
		if code := <-done; code != exitOK {
			t.Errorf("exit code %d", code)
		}
	}
	// This runtime keeps nothing: what was before is not known to the new one.
	if text := watcher.err.String(); !strings.Contains(text, "trying again") || !strings.Contains(text, "events may be missing") {
		t.Errorf("said %q", text)
	}
	nobody := newPerson(t, "unix:///nowhere")
	nobody.want(exitError, "watch", "mounts")
}

func TestSchemaOfKinds(t *testing.T) {
	p := newPerson(t, "unix://"+startRuntime(t))
	golden(t, "schema", p.want(exitOK, "schema", "mount", "--offline"))
	p.want(exitOK, "apply", "-f", p.file("all.yaml", widgets(t)))
	for text, args := range map[string][]string{
		"Widgets.example.com":            {"schema"},
		"MountPoints.storage.cosi.dev":   {"schema", "--offline"},
		`"title": "A resource of a COSI`: {"schema", "mount", "widget"},
	} {
		if got := p.want(exitOK, args...); !strings.Contains(got, text) || !json.Valid([]byte(got)) {
			t.Errorf("cosictl %s lacks %s", strings.Join(args, " "), text)
		}
	}
	if text := p.want(exitError, "schema", "muont"); !strings.Contains(text, "did you mean") {
		t.Errorf("said %q", text)
	}
}

func TestValidateAgainstAnImage(t *testing.T) {
	p := newPerson(t, "")
	file := p.file("mount.yaml", mountYAML)
	if text := p.want(exitError, "validate", "-f", file, "--image", file); !strings.Contains(text, "mount.yaml: is no image of a COSI node") {
		t.Errorf("said %q", text)
	}
	if text := p.want(exitError, "schema", "--image", p.file("node.qcow2", "QFI\xfb0123456789")); !strings.Contains(text, "node.qcow2: qcow2: header: EOF") {
		t.Errorf("said %q", text)
	}
	p.want(exitOK, "validate", "-f", file)
}
