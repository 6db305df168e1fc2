package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	eventspb "github.com/cosi-os/cosi/api/cosi/events/v1alpha1"
	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	storagepb "github.com/cosi-os/cosi/api/cosi/storage/v1alpha1"
	"github.com/cosi-os/cosi/sdk"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// TestMain makes the test binary each of the plugins, by the name that it is called by.
func TestMain(m *testing.M) {
	name := filepath.Base(os.Args[0])
	if p, ok := specimens()[name]; ok {
		sdk.Main(p.plugin())
	}
	if name == "listening" {
		sdk.Main(generator())
	}
	os.Exit(m.Run())
}

const (
	points   = "MountPoints.storage.cosi.dev"
	statuses = "MountPointStatuses.storage.cosi.dev"
)

const pretend = `{
	"name": "pretend", "description": "says of each MountPoint that it is mounted",
	"inputs": [{"type": "MountPoints.storage.cosi.dev", "finalizers": true}], "outputs": ["MountPointStatuses.storage.cosi.dev"]
}`

// specimen is a plugin, in what it does unlike a good one.
type specimen struct {
	breaks      string // the rule
	never       bool   // it never does what is waited for
	declaration string
	serve       func(context.Context, *sdk.State, mountPoint) error
	letGo       func(context.Context, *sdk.State, mountPoint) error
	watch       func(ctx context.Context, wake func()) error
	drain       func(context.Context, *sdk.State) error
}

type mountPoint = sdk.Resource[*storagepb.MountPoint]

func (p specimen) plugin() sdk.Plugin {
	if p.declaration == "" {
		p.declaration = pretend
	}
	if p.serve == nil {
		p.serve = says("Mounted")
	}
	if p.letGo == nil {
		p.letGo = letGo
	}
	reconcile := func(ctx context.Context, s *sdk.State) error {
		var errs []error
		for _, point := range sdk.List[*storagepb.MountPoint](s, points) {
			if point.TearingDown() {
				errs = append(errs, p.letGo(ctx, s, point))
			} else if err := s.AddFinalizer(ctx, point.Metadata); err != nil {
				errs = append(errs, err)
			} else {
				errs = append(errs, p.serve(ctx, s, point))
			}
		}
		return errors.Join(errs...)
	}
	return sdk.Plugin{Declaration: []byte(p.declaration), Version: "1", Controllers: []sdk.Controller{{
		Name: "points", Inputs: []string{points}, Outputs: []string{statuses}, Reconcile: reconcile, Watch: p.watch, Drain: p.drain,
	}}}
}

// says writes the status.
func says(reason string) func(context.Context, *sdk.State, mountPoint) error {
	return func(ctx context.Context, s *sdk.State, p mountPoint) error {
		status := &storagepb.MountPointStatus{ObservedVersion: p.GetVersion(), Ready: true, Reason: reason, Target: p.Spec.GetTarget()}
		return s.Write(ctx, statuses, p.GetId(), status, p.Metadata)
	}
}

func letGo(ctx context.Context, s *sdk.State, p mountPoint) error {
	if err := s.Delete(ctx, statuses, p.GetId()); err != nil {
		return err
	}
	return s.RemoveFinalizer(ctx, p.Metadata)
}

// sayAgain writes the status that is there, needlessly.
func sayAgain(ctx context.Context, s *sdk.State, p mountPoint) error {
	if err := says("Mounted")(ctx, s, p); err != nil {
		return err
	}
	status, err := s.Client().Get(ctx, &resourcepb.GetRequest{Namespace: "status", Type: statuses, Id: p.GetId()})
	if err != nil {
		return err
	}
	_, err = s.Client().Update(ctx, &resourcepb.UpdateRequest{NewResource: status.GetResource(), Options: &resourcepb.UpdateOptions{Owner: "pretend"}})
	return err
}

// specimens returns a good plugin, and others with one mistake each.
func specimens() map[string]specimen {
	said := map[string]bool{}
	return map[string]specimen{
		"good":     {},
		"impostor": {breaks: ruleStarts, declaration: strings.Replace(pretend, "pretend", "another", 1)},
		"mute": {never: true, breaks: ruleAnswers, serve: func(context.Context, *sdk.State, mountPoint) error {
			return nil
		}},
		"restless": {never: true, breaks: ruleRests, serve: sayAgain, watch: func(ctx context.Context, wake func()) error {
			for ; ctx.Err() == nil; time.Sleep(20 * time.Millisecond) {
				wake()
			}
			return nil
		}},
		"needless": {breaks: ruleReconnects, serve: sayAgain},
		"forgetful": {never: true, breaks: ruleRewrites, serve: func(ctx context.Context, s *sdk.State, p mountPoint) error {
			if version := p.GetId() + p.GetVersion(); !said[version] { // also what the runtime has forgotten since
				said[version] = true
				return says("Mounted")(ctx, s, p)
			}
			return nil
		}},
		"fickle":   {never: true, breaks: ruleSurvives, serve: says(fmt.Sprintf("MountedBy%d", os.Getpid()))},
		"clinging": {never: true, breaks: ruleLetsGo, letGo: func(ctx context.Context, s *sdk.State, p mountPoint) error { return s.Delete(ctx, statuses, p.GetId()) }},
		"frail": {breaks: ruleLetsGo, letGo: func(context.Context, *sdk.State, mountPoint) error {
			panic("an empty map")
		}},
		"hasty": {never: true, breaks: ruleFinishes, letGo: func(ctx context.Context, s *sdk.State, p mountPoint) error {
			if _, there := sdk.Get[*storagepb.MountPointStatus](s, statuses, p.GetId()); !there {
				return nil // done, it believes
			}
			if err := s.Delete(ctx, statuses, p.GetId()); err != nil {
				return err
			}
			time.Sleep(300 * time.Millisecond)
			return s.RemoveFinalizer(ctx, p.Metadata)
		}},
		"stubborn": {never: true, breaks: ruleDrains, drain: func(context.Context, *sdk.State) error { select {} }},
		"sulking": {breaks: ruleDrains, drain: func(context.Context, *sdk.State) error {
			os.Exit(3)
			return nil
		}},
		"curious": {breaks: ruleCalls, serve: func(ctx context.Context, s *sdk.State, p mountPoint) error {
			_, _ = s.Client().Get(ctx, &resourcepb.GetRequest{Namespace: "config", Type: "Users.auth.cosi.dev", Id: "root"})
			return says("Mounted")(ctx, s, p)
		}},
		"meddling": {breaks: ruleCalls, serve: func(ctx context.Context, s *sdk.State, p mountPoint) error {
			_, _ = s.Client().Destroy(ctx, &resourcepb.DestroyRequest{Namespace: "config", Type: points, Id: p.GetId()})
			return says("Mounted")(ctx, s, p)
		}},
	}
}

const documents = `
metadata: {type: MountPoint, id: one}
spec: {source: tmpfs, target: /var/one, fstype: tmpfs}
---
metadata: {type: MountPoint, id: two}
spec: {source: tmpfs, target: /var/two, fstype: tmpfs}
`

// write puts a file into a directory of the test and returns its path.
func write(t *testing.T, name, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// named returns the test binary under the name of a specimen.
func named(t *testing.T, name string) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), name)
	if err := os.Symlink(self, path); err != nil {
		t.Fatal(err)
	}
	return path
}

// checkPlugin returns what came of each rule, what the tool said, and its exit code.
func checkPlugin(t *testing.T, name string, args ...string) (all []finding, said string, code int) {
	t.Helper()
	var out, errs bytes.Buffer
	args = append([]string{"plugin", named(t, name), "--quiet", "300ms", "-o", "json"}, args...)
	code = run(t.Context(), args, &out, &errs)
	for line := range strings.Lines(out.String()) {
		var f finding
		if err := json.Unmarshal([]byte(line), &f); err != nil {
			t.Fatal(err)
		}
		all = append(all, f)
	}
	return all, errs.String(), code
}

func rulesThat(all []finding, outcome string) (rules []string) {
	for _, f := range all {
		if f.Outcome == outcome {
			rules = append(rules, f.Rule)
		}
	}
	return rules
}

func TestPlugins(t *testing.T) {
	for name, p := range specimens() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			code, want := exitBroken, []string{p.breaks}
			if p.breaks == "" {
				code, want = exitKept, nil
			}
			timeout := "60s" // on a busy machine
			if p.never {
				timeout = "6s"
			}
			all, said, got := checkPlugin(t, name, "--declaration", write(t, "plugin.json", pretend), "--inputs", write(t, "inputs.yaml", documents), "--timeout", timeout)
			if broken := rulesThat(all, broken); got != code || !slices.Equal(broken, want) {
				t.Errorf("exit code %d, broken %q; want %d, %q\n%v\n%s", got, broken, code, want, all, said)
			}
			if len(all) != 10 || p.breaks == "" && len(rulesThat(all, kept)) != 10 {
				t.Errorf("%d rules: %v; want 10", len(all), all)
			}
		})
	}
}

// TestAGeneratorIsKilled: since when it listens is new then, and so may events be.
func TestAGeneratorIsKilled(t *testing.T) {
	t.Parallel()
	all, said, code := checkPlugin(t, "listening")
	if code != exitKept || !slices.Contains(rulesThat(all, kept), ruleSurvives) {
		t.Errorf("exit code %d, %v; want that it comes back to the same\n%s", code, all, said)
	}
}

const listening = `{"name": "listening", "description": "a generator", "outputs": ["GeneratorStatuses.events.cosi.dev", "BlockEvents.events.cosi.dev"]}`

// generator says since when it listens, and that something happened.
func generator() sdk.Plugin {
	begun := timestamppb.Now()
	return sdk.Plugin{Declaration: []byte(listening), Version: "1", Controllers: []sdk.Controller{{
		Name: "listening", Outputs: []string{"GeneratorStatuses.events.cosi.dev", "BlockEvents.events.cosi.dev"},
		Reconcile: func(ctx context.Context, s *sdk.State) error {
			return errors.Join(
				s.Write(ctx, "GeneratorStatuses.events.cosi.dev", "listening", &eventspb.GeneratorStatus{Mode: "netlink", Since: begun}, nil),
				s.Write(ctx, "BlockEvents.events.cosi.dev", fmt.Sprint(os.Getpid()), &eventspb.BlockEvent{Time: begun}, nil),
			)
		},
	}}}
}

// TestAPluginSaysItselfWhatItIs: the impostor is one by the declaration that it is given, not by its own.
func TestAPluginSaysItselfWhatItIs(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"good", "impostor"} {
		all, said, code := checkPlugin(t, name, "--inputs", write(t, "inputs.yaml", documents), "--timeout", "60s")
		if code != exitKept || len(rulesThat(all, kept)) != 10 {
			t.Errorf("%s: exit code %d, %v; want that all rules are kept\n%s", name, code, all, said)
		}
	}
}

func TestWithoutInputsTheRestOfAPluginIsChecked(t *testing.T) {
	t.Parallel()
	all, said, code := checkPlugin(t, "good")
	want := []string{ruleAnswers, ruleRewrites, ruleLetsGo, ruleFinishes}
	if got := rulesThat(all, unchecked); code != exitKept || !slices.Equal(got, want) {
		t.Errorf("exit code %d, unchecked %q; want %q\n%s", code, got, want, said)
	}
}

func TestAPluginThatCannotBeCheckedIsNoVerdict(t *testing.T) {
	d := write(t, "plugin.json", pretend)
	for want, args := range map[string][]string{
		"accepts 1 arg(s)": {"--declaration", d},
		"/bin/false --declaration: exit status 1: give the declaration as a file": {"/bin/false"},
		"/bin/true --declaration: ":                                  {"/bin/true"},
		"./nothing --declaration: fork/exec ./nothing: no such file": {"./nothing"},
		"unknown field":                 {"./nothing", "--declaration", write(t, "plugin.json", `{"nmae": ""}`)},
		"output Nothings, which is no":  {"./nothing", "--declaration", write(t, "plugin.json", `{"name": "a", "outputs": ["Nothings"]}`)},
		"must be one of text, json":     {"./nothing", "--declaration", d, "-o", "xml"},
		"is no input of the":            {"./nothing", "--declaration", d, "--inputs", write(t, "i.yaml", "metadata: {type: Link, id: a}\nspec: {mtu: 1400}\n")},
		"i.yaml:2: spec":                {"./nothing", "--declaration", d, "--inputs", write(t, "i.yaml", "metadata: {type: MountPoint, id: a}\nspec: {tarket: /b}\n")},
		"inputs.yaml: no such file":     {"./nothing", "--declaration", d, "--inputs", "/inputs.yaml"},
		"plugin.json: no such file or ": {"./nothing", "--declaration", "/plugin.json"},
	} {
		var out, errs bytes.Buffer
		if code := run(t.Context(), append([]string{"plugin"}, args...), &out, &errs); code != exitUnchecked || !strings.Contains(errs.String(), want) {
			t.Errorf("%q: exit code %d, %s; want %q", args, code, errs.String(), want)
		}
	}
}
