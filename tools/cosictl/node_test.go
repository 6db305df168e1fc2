package main

import (
	"context"
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"
	"time"

	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	metapb "github.com/cosi-os/cosi/api/cosi/resource/meta"
	"github.com/cosi-os/cosi/api/kinds"
	"github.com/cosi-os/cosi/api/kinds/builtin"
	"github.com/cosi-os/cosi/api/kinds/descriptors"
	"github.com/cosi-os/cosi/tools/client"
)

const mountYAML = `metadata:
  type: mount
  id: data
  labels: {tier: db}
spec:
  source: /dev/vdb
  target: /var/data
  fstype: ext4
  flags: [nodev]
`

// TestAgainstTheRuntime drives a real runtime through its socket, one story after the other.
func TestAgainstTheRuntime(t *testing.T) {
	socket := startRuntime(t)
	for _, test := range []struct {
		name string
		run  func(*testing.T, *person)
	}{
		{"apply says what it did", applySaysWhatItDid},
		{"get shows", getShows},
		{"nothing is written when one document is wrong", nothingIsWritten},
		{"wait", waits},
		{"delete", deletes},
		{"watch prints one object a line", watches},
		{"logs", logs},
		{"a kind of somebody else", foreignKind},
		{"completion", completes},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, newPerson(t, "unix://"+socket)) })
	}
}

func applySaysWhatItDid(t *testing.T, p *person) {
	file := p.file("mount.yaml", mountYAML)
	p.in = strings.Replace(mountYAML, "nodev", "nosuid", 1)
	var said strings.Builder
	said.WriteString(p.want(exitOK, "apply", "-f", file, "--dry-run"))
	said.WriteString(p.want(exitError, "get", "mount", "data"))
	said.WriteString(p.want(exitOK, "apply", "-f", file))
	said.WriteString(p.want(exitOK, "apply", "-f", file))
	said.WriteString(p.want(exitOK, "apply", "-f", "-"))
	golden(t, "apply", said.String())
}

func getShows(t *testing.T, p *person) {
	p.want(exitOK, "apply", "-f", p.file("mount.yaml", mountYAML))
	var said strings.Builder
	for _, args := range [][]string{
		{"get", "mounts"}, {"get", "mountpoint/data"}, {"get", "mounts", "-l", "tier=db"}, {"get", "mounts", "-l", "tier!=db"},
		{"get", "mount", "data", "-o", "yaml"}, {"get", "mount", "data", "-o", "json"}, {"describe", "mount", "data"}, {"explain", "mount"}, {"explain", "links"},
		{"version"},
	} {
		said.WriteString("$ cosictl " + strings.Join(args, " ") + "\n" + p.want(exitOK, args...))
	}
	text := p.timeless(said.String())
	text = versionLine.ReplaceAllString(text, "version: 'N'")
	text = jsonVersion.ReplaceAllString(text, `"version": "N"`)
	text = clientLine.ReplaceAllString(text, "Client:  VERSION")
	text = described.ReplaceAllString(text, "Version:     N, running")
	golden(t, "get", updated.ReplaceAllString(text, ""))
	for _, args := range [][]string{{"mounts"}, {"mount", "data", "-o", "yaml"}, {}} {
		if got, listed := p.want(exitOK, append([]string{"get"}, args...)...), p.want(exitOK, append([]string{"list"}, args...)...); got != listed {
			t.Errorf("list %v:\n%s\nget:\n%s", args, listed, got)
		}
	}
	kindsShown := p.want(exitOK, "get")
	for _, k := range builtin.Set().All() {
		if !strings.Contains(kindsShown, k.Type()) || !strings.Contains(kindsShown, k.Definition.GetDescription()) {
			t.Errorf("%s is not among the kinds:\n%s", k.Type(), kindsShown)
		}
	}
}

func nothingIsWritten(t *testing.T, p *person) {
	p.file("a.yaml", strings.Replace(mountYAML, "data\n", "other\n", 1))
	p.file("b.toml", "[metadata]\ntype = 'mount'\nid = 'b'\n[spec]\nsource = '/dev/vdc'\ntarget = '/etc'\nfstype = 'ext4'\nflags = ['ro', 'noexce']\n")
	p.file("c.json", `{"metadata": {"type": "muont", "id": "c"}}`)
	p.file("notes.txt", "not looked at")
	golden(t, "wrong", p.timeless(p.want(exitError, "apply", "-f", p.home)))
	p.want(exitError, "get", "mount", "other")
}

func waits(t *testing.T, p *person) {
	file := p.file("mount.yaml", strings.Replace(mountYAML, "data\n", "slow\n", 1))
	text := p.want(exitTimeout, "apply", "-f", file, "--wait", "--timeout", "300ms")
	if !strings.Contains(text, "mountpoint/slow is not ready: no status yet") {
		t.Errorf("said %q", text)
	}
	status := func(version, ready string) string {
		return "metadata: {type: mountstatus, id: slow}\nspec: {observed_version: '" + version + "', ready: " + ready + ", reason: SourceMissing, message: no such device}\n"
	}
	p.in = status("1", "false")
	p.want(exitOK, "apply", "-f", "-")
	text = p.want(exitTimeout, "apply", "-f", file, "--wait", "--timeout", "300ms")
	if !strings.Contains(text, "mountpoint/slow is not ready: SourceMissing: no such device") {
		t.Errorf("said %q", text)
	}
	golden(t, "describe-not-ready", p.timeless(p.want(exitOK, "describe", "mountpoint/slow")))
	done := make(chan struct{})
	go func() {
		defer close(done)
		time.Sleep(200 * time.Millisecond)
		controller := newPerson(t, p.endpoint)
		controller.in = status("1", "true")
		controller.want(exitOK, "apply", "-f", "-")
	}()
	text = p.want(exitOK, "apply", "-f", file, "--wait", "--timeout", "20s")
	<-done
	if !strings.Contains(text, "mountpoint/slow unchanged\nmountpoint/slow ready\n") {
		t.Errorf("said %q", text)
	}
	// A newer version makes the status one of the past.
	p.in = strings.Replace(strings.Replace(mountYAML, "data\n", "slow\n", 1), "nodev", "ro", 1)
	p.want(exitTimeout, "apply", "-f", "-", "--wait", "--timeout", "300ms")
}

func deletes(t *testing.T, p *person) {
	file := p.file("mount.yaml", strings.ReplaceAll(mountYAML, "data\n", "gone\n"))
	p.want(exitOK, "apply", "-f", file)
	if text := p.want(exitOK, "delete", "-f", file); text != "mountpoint/gone deleted\n" {
		t.Errorf("said %q", text)
	}
	if text := p.want(exitError, "delete", "mount", "gone"); text != "cosictl: mountpoint/gone does not exist\n" {
		t.Errorf("said %q", text)
	}
	p.want(exitOK, "delete", "mountpoint/gone", "--ignore-missing")
	// Somebody holds on to it.
	p.in = strings.ReplaceAll(mountYAML, "data\n", "held\n")
	p.want(exitOK, "apply", "-f", "-")
	hold(t, p.endpoint, "mount", "held")
	if text := p.want(exitTimeout, "delete", "mount", "held", "--timeout", "300ms"); text != "cosictl: mountpoint/held is still tearing down: held by mount\n" {
		t.Errorf("said %q", text)
	}
	if text := p.want(exitError, "apply", "-f", "-"); text != "cosictl: mountpoint/held: is being deleted and held by mount: apply it again once it is gone\n" {
		t.Errorf("said %q", text)
	}
	p.want(exitUsage, "delete", "mount")
	p.want(exitUsage, "delete", "mount", "a", "-f", file)
}

// hold puts a finalizer on a resource, as a plugin does.
func hold(t *testing.T, endpoint, kind, id string) {
	t.Helper()
	c, err := client.Dial(client.Context{Endpoint: endpoint})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	k, err := c.Kind(t.Context(), kind)
	if err != nil {
		t.Fatal(err)
	}
	r, err := c.Get(t.Context(), k, id)
	if err != nil {
		t.Fatal(err)
	}
	r.Metadata.Finalizers = []string{"mount"}
	if _, err := c.State.Update(t.Context(), &resourcepb.UpdateRequest{NewResource: r}); err != nil {
		t.Fatal(err)
	}
}

func watches(t *testing.T, p *person) {
	file := p.file("mount.yaml", strings.Replace(mountYAML, "data\n", "seen\n", 1))
	ctx, stop := context.WithCancel(t.Context())
	watcher := newPerson(t, p.endpoint)
	done := make(chan int)
	go func() { done <- watcher.runFor(ctx, "watch", "mounts", "-l", "tier=db") }()
	p.eventually(func() bool { return strings.Contains(watcher.out.String(), `"BOOTSTRAPPED"`) })
	p.want(exitOK, "apply", "-f", file)
	p.want(exitOK, "delete", "-f", file)
	p.eventually(func() bool { return strings.Contains(watcher.out.String(), `"DESTROYED"`) })
	stop()
	if code := <-done; code != exitOK {
		t.Errorf("exit code %d after an interrupt", code)
	}
	for line := range strings.Lines(watcher.out.String()) {
		event := struct {
			Resource struct{ Metadata struct{ Type string } }
		}{}
		if err := json.Unmarshal([]byte(line), &event); err != nil || event.Resource.Metadata.Type != "MountPoints.storage.cosi.dev" {
			t.Errorf("%v in %s", err, line)
		}
	}
}

func (p *person) eventually(true func() bool) {
	p.t.Helper()
	for range 400 {
		if true() {
			return
		}
		time.Sleep(25 * time.Millisecond)
	}
	p.t.Fatal("it has not come")
}

func logs(t *testing.T, p *person) {
	print := func(n string) { p.prints("2026-01-01T00:00:0"+n+"Z", n) }
	if text := p.want(exitError, "logs", "engine"); !strings.Contains(text, "has printed nothing") {
		t.Errorf("said %q", text)
	}
	for _, n := range []string{"1", "2", "3"} {
		print(n)
	}
	for tail, want := range map[string]string{"10": "line 1\nline 2\nline 3\n", "2": "line 2\nline 3\n", "0": ""} {
		if text := p.want(exitOK, "logs", "engine", "--tail", tail); text != want {
			t.Errorf("--tail %s: %q; want %q", tail, text, want)
		}
	}
	if text := p.want(exitOK, "logs", "engine", "--tail", "1", "-o", "json"); text != `{"time":"2026-01-01T00:00:03Z","stream":"stdout","sequence":3,"line":"line 3","fields":{"n":3}}`+"\n" {
		t.Errorf("said %q", text)
	}
	ctx, stop := context.WithCancel(t.Context())
	follower := newPerson(t, p.endpoint)
	done := make(chan int)
	go func() { done <- follower.runFor(ctx, "logs", "engine", "-f", "--tail", "1") }()
	p.eventually(func() bool { return strings.Contains(follower.out.String(), "line 3") })
	print("4")
	p.eventually(func() bool { return follower.out.String() == "line 3\nline 4\n" })
	stop()
	if code := <-done; code != exitOK {
		t.Errorf("exit code %d after an interrupt", code)
	}
}

// foreignKind defines a kind that this program was not built with.
func foreignKind(t *testing.T, p *person) {
	mount, err := builtin.Set().Lookup("mount")
	if err != nil {
		t.Fatal(err)
	}
	widget, err := kinds.New(&metapb.ResourceDefinitionSpec{
		ResourceType: "Widgets.example.com", DisplayType: "Widget", DefaultNamespace: "config", Aliases: []string{"wg"}, Description: "Somebody else's",
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
	p.in = "metadata: {type: rd, id: widgets.example.com}\nspec:\n  " + strings.ReplaceAll(strings.TrimSpace(spec), "\n", "\n  ") + "\n"
	p.want(exitOK, "apply", "-f", "-")
	p.in = strings.Replace(mountYAML, "type: mount", "type: wg", 1)
	if text := p.want(exitOK, "apply", "-f", "-"); text != "widget/data created\n" {
		t.Errorf("said %q", text)
	}
	p.want(exitOK, "get", "widgets")
	if text := p.want(exitOK, "get"); !strings.Contains(text, "Widgets.example.com") {
		t.Errorf("the new kind is not among the kinds:\n%s", text)
	}
}

// prints writes a line of the process engine, as the runtime does.
func (p *person) prints(at, n string) {
	p.t.Helper()
	p.in = "metadata: {type: log, id: engine}\nspec: {time: " + at + ", stream: stdout, sequence: " + n + ", line: 'line " + n + "', fields: {n: " + n + "}}\n"
	p.want(exitOK, "apply", "-f", "-")
}

func TestLogsGoOnAfterARestart(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	stop := startAt(t, socket)
	p := newPerson(t, "unix://"+socket)
	p.prints("2026-01-01T00:00:01Z", "1")
	p.prints("2026-01-01T00:00:02Z", "2")
	ctx, interrupt := context.WithCancel(t.Context())
	follower := newPerson(t, p.endpoint)
	done := make(chan int)
	go func() { done <- follower.runFor(ctx, "logs", "engine", "-f", "--tail", "1") }()
	p.eventually(func() bool { return follower.out.String() == "line 2\n" })
	stop()
	t.Cleanup(startAt(t, socket))
	// PID 1 hands the old lines to a runtime that starts again.
	p.prints("2026-01-01T00:00:02Z", "2")
	p.prints("2026-01-01T00:00:03Z", "3")
	p.eventually(func() bool { return follower.out.String() == "line 2\nline 3\n" })
	interrupt()
	if code := <-done; code != exitOK {
		t.Errorf("exit code %d after an interrupt", code)
	}
	if text := follower.err.String(); !strings.Contains(text, "trying again") {
		t.Errorf("said %q", text)
	}
}

func completes(t *testing.T, p *person) {
	p.want(exitOK, "apply", "-f", p.file("mount.yaml", mountYAML))
	if text := p.want(exitOK, "__complete", "get", "mountp"); !strings.Contains(text, "mountpoints\tA file system to mount\n") {
		t.Errorf("kinds: %q", text)
	}
	if text := p.want(exitOK, "__complete", "li"); !strings.Contains(text, "list\tAnother name of get\n") {
		t.Errorf("commands: %q", text)
	}
	if text := p.want(exitOK, "__complete", "list", "mount", "d"); !strings.Contains(text, "data\n") {
		t.Errorf("ids: %q", text)
	}
	if text := p.want(exitOK, "__complete", "describe", "mount", "d"); !strings.Contains(text, "data\n") {
		t.Errorf("ids: %q", text)
	}
	if text := p.want(exitOK, "completion", "bash"); !strings.Contains(text, "__start_cosictl") {
		t.Errorf("bash: %d bytes", len(text))
	}
}
