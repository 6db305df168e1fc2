package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	machinepb "github.com/cosi-os/cosi/api/cosi/machine/v1alpha1"
	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	servicepb "github.com/cosi-os/cosi/api/cosi/service/v1alpha1"
	"github.com/cosi-os/cosi/api/kinds"
	"github.com/cosi-os/cosi/tools/client"
	"github.com/cosi-os/cosi/tools/internal/commandline"
)

// annotationCause names the desired resource that a write answers to: TYPE/ID@VERSION.
const annotationCause = "cosi.dev/cause"

func newWhy(a *app) *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:   "why KIND ID",
		Short: "Show why a resource is as it is: who wrote it, what for, what came of it",
		Long: `Show the chain of causes of a resource: who wrote it and when, the resource that it answers to, the plugin at work and how it is, what
its status says, who holds it, and which other resources answer to it. Contents are never shown.`,
		Example:           "  cosictl why mount/data\n  cosictl why mountstatus/data -o json",
		Args:              commandline.Arguments(1, 2),
		ValidArgsFunction: a.completeKindAndID,
		RunE: a.withClient(func(ctx context.Context, c *client.Client, args []string) error {
			if args = splitID(args); len(args) != 2 {
				return commandline.Usagef("why KIND ID")
			}
			k, err := c.Kind(ctx, args[0])
			if err != nil {
				return err
			}
			w := &why{client: c, now: a.now(), seen: map[string]bool{}}
			root, err := w.resource(ctx, k, args[1])
			if err != nil {
				return err
			}
			if err := w.effects(ctx, root, k, args[1]); err != nil {
				return err
			}
			if format == formatJSON {
				encoder := json.NewEncoder(a.out)
				encoder.SetIndent("", "  ")
				return encoder.Encode(root)
			}
			root.print(a.out, "", "")
			return nil
		}),
	}
	commandline.AddOutput(cmd, &format, formatTable, formatJSON)
	return cmd
}

// fact is something that is so, and the facts behind it.
type fact struct {
	Text string `json:"text"`
	// Resource is KIND/ID, if the fact is one.
	Resource string  `json:"resource,omitempty"`
	Because  []*fact `json:"because,omitempty"`
}

func (f *fact) because(format string, args ...any) *fact {
	reason := &fact{Text: oneLine(fmt.Sprintf(format, args...))}
	f.Because = append(f.Because, reason)
	return reason
}

// print draws the tree.
func (f *fact) print(out io.Writer, first, rest string) {
	text := f.Text
	if f.Resource != "" {
		text = f.Resource + ": " + text
	}
	fmt.Fprintln(out, first+text)
	for i, reason := range f.Because {
		if i == len(f.Because)-1 {
			reason.print(out, rest+"└─ ", rest+"   ")
			continue
		}
		reason.print(out, rest+"├─ ", rest+"│  ")
	}
}

// above stands for a resource that is in the tree already.
const above = "see above"

// why collects facts.
type why struct {
	client  *client.Client
	now     time.Time
	seen    map[string]bool // resources that are in the tree
	plugins map[string]*servicepb.PluginStatus
}

// resource returns what is known of one resource.
func (w *why) resource(ctx context.Context, k *kinds.Kind, id string) (*fact, error) {
	f := &fact{Resource: k.Singular() + "/" + id}
	if w.seen[f.Resource] {
		f.Text = above
		return f, nil
	}
	w.seen[f.Resource] = true
	r, err := w.client.Get(ctx, k, id)
	if client.Code(err) == codes.NotFound {
		f.Text = "is not there"
		return f, w.written(ctx, f, k, nil, id)
	}
	if err != nil {
		return nil, err
	}
	m := r.GetMetadata()
	f.Text = "version " + m.GetVersion() + ", " + strings.ReplaceAll(m.GetPhase(), "tearingDown", "being deleted")
	if isStatus(k) {
		converged, err := client.ReadConvergence(k, r)
		if err != nil {
			return nil, err
		}
		f.Text = state(converged)
	}
	for _, add := range []func(context.Context, *fact, *kinds.Kind, *resourcepb.Resource) error{w.origin, w.status, w.holders} {
		if err := add(ctx, f, k, r); err != nil {
			return nil, err
		}
	}
	return f, nil
}

func isStatus(k *kinds.Kind) bool {
	return k.Message.Fields().ByName("observed_version") != nil
}

func state(c client.Convergence) string {
	ready := "not ready"
	if c.Ready {
		ready = "ready"
	}
	text := fmt.Sprintf("%s, answers to version %s", ready, c.ObservedVersion)
	if c.Reason+c.Message != "" {
		text += ": " + c.String()
	}
	return oneLine(text)
}

// origin says who wrote a resource: a plugin and what for, or people.
func (w *why) origin(ctx context.Context, f *fact, k *kinds.Kind, r *resourcepb.Resource) error {
	m := r.GetMetadata()
	if m.GetOwner() == "" {
		return w.written(ctx, f, k, r, m.GetId())
	}
	by, err := w.plugin(ctx, f, "written by", m.GetOwner())
	if err != nil {
		return err
	}
	cause := m.GetAnnotations()[annotationCause]
	typ, rest, ok := strings.Cut(cause, "/")
	at := strings.LastIndexByte(rest, '@')
	if !ok || at < 0 {
		return nil
	}
	id, version := rest[:at], rest[at+1:]
	causing, err := w.client.Kind(ctx, typ)
	if err != nil {
		by.because("in answer to %s", cause)
		return nil
	}
	reason, err := w.resource(ctx, causing, id)
	if err != nil {
		return err
	}
	if reason.Text == above {
		reason.Text = fmt.Sprintf("in answer to its version %s, %s", version, above)
	} else {
		reason.Text = fmt.Sprintf("in answer to its version %s; now it is %s", version, reason.Text)
	}
	by.Because = append(by.Because, reason)
	return nil
}

// written says who wrote what people write.
func (w *why) written(ctx context.Context, f *fact, k *kinds.Kind, r *resourcepb.Resource, id string) error {
	switch source, detail, _ := strings.Cut(r.GetMetadata().GetAnnotations()[provenance], "/"); source {
	case "userdata":
		from, digest, _ := strings.Cut(detail, "@")
		f.because("written by user data from %s, digest %s", from, digest)
		return nil
	case "image":
		f.because("a default of the image %s", detail)
		return nil
	}
	if k.Namespace() != namespaceConfig && k.Namespace() != "requests" && k.Type() != definitionType {
		return nil
	}
	record, err := w.lastWrite(ctx, k, id)
	if err != nil || record == nil {
		f.because("no audit record says who wrote it (%v)", or(err, "it may be too old"))
		return nil
	}
	role := record.GetWho().GetRole()
	if role != "" {
		role = " (" + role + ")"
	}
	f.because("%s by %s%s, %s ago", past(record.GetVerb()), record.GetWho().GetName(), role, shortDuration(w.now.Sub(record.GetTime().AsTime())))
	return nil
}

func or(err error, otherwise string) string {
	if err != nil {
		return err.Error()
	}
	return otherwise
}

func past(verb string) string {
	switch verb {
	case "teardown":
		return "torn down"
	case "destroy":
		return "destroyed"
	}
	return verb + "d"
}

// lastWrite returns the newest record of a write of that resource, or nil.
func (w *why) lastWrite(ctx context.Context, k *kinds.Kind, id string) (*machinepb.AuditRecord, error) {
	audit, err := w.client.Kind(ctx, "AuditRecords.machine.cosi.dev")
	if err != nil {
		return nil, err
	}
	all, err := w.client.List(ctx, audit)
	for _, r := range slices.Backward(all) {
		record := &machinepb.AuditRecord{}
		if err := proto.Unmarshal(r.GetSpec().GetProtoSpec(), record); err != nil {
			return nil, err
		}
		if record.GetOutcome() == "Committed" && record.GetType() == k.Type() && record.GetId() == id {
			return record, nil
		}
	}
	return nil, err
}

// status adds the status of a desired resource, or why there is none.
func (w *why) status(ctx context.Context, f *fact, k *kinds.Kind, r *resourcepb.Resource) error {
	typ := k.Definition.GetObservedType()
	if typ == "" {
		return nil
	}
	observed, err := w.client.Kind(ctx, typ)
	if err != nil {
		return err
	}
	status, err := w.resource(ctx, observed, r.GetMetadata().GetId())
	if err != nil {
		return err
	}
	f.Because = append(f.Because, status)
	if status.Text != "is not there" {
		return nil
	}
	status.Text, status.Because = "no status yet", nil
	if err := w.readPlugins(ctx); err != nil {
		return err
	}
	for name, p := range w.plugins {
		for _, controller := range p.GetControllers() {
			if slices.Contains(controller.GetInputs(), k.Type()) && slices.Contains(controller.GetOutputs(), typ) {
				_, err := w.plugin(ctx, status, "it is to come from", name)
				return err
			}
		}
	}
	status.because("no plugin that runs here takes %s", k.ShortName())
	return nil
}

// holders adds who keeps a resource from being destroyed.
func (w *why) holders(ctx context.Context, f *fact, _ *kinds.Kind, r *resourcepb.Resource) error {
	for _, holder := range r.GetMetadata().GetFinalizers() {
		if _, err := w.plugin(ctx, f, "held by", holder); err != nil {
			return err
		}
	}
	return nil
}

// plugin adds a plugin and how it is.
func (w *why) plugin(ctx context.Context, f *fact, relation, name string) (*fact, error) {
	if name == "runtime" {
		return f.because("%s the runtime", relation), nil
	}
	if err := w.readPlugins(ctx); err != nil {
		return nil, err
	}
	p := w.plugins[name]
	switch {
	case p == nil:
		return f.because("%s %s, which is no plugin of this node", relation, name), nil
	case p.GetReady():
		return f.because("%s the plugin %s, which is ready", relation, name), nil
	}
	text := p.GetState()
	if p.GetMessage() != "" {
		text += ": " + p.GetMessage()
	}
	return f.because("%s the plugin %s, which is not ready: %s", relation, name, text), nil
}

func (w *why) readPlugins(ctx context.Context) error {
	if w.plugins != nil {
		return nil
	}
	k, err := w.client.Kind(ctx, "PluginStatuses.service.cosi.dev")
	if err != nil {
		return err
	}
	all, err := w.client.List(ctx, k)
	if err != nil {
		return err
	}
	w.plugins = map[string]*servicepb.PluginStatus{}
	for _, r := range all {
		p := &servicepb.PluginStatus{}
		if err := proto.Unmarshal(r.GetSpec().GetProtoSpec(), p); err != nil {
			return err
		}
		w.plugins[r.GetMetadata().GetId()] = p
	}
	return nil
}

// effects adds the resources that answer to one, but those that are in the tree already.
func (w *why) effects(ctx context.Context, f *fact, k *kinds.Kind, id string) error {
	set, err := w.client.Kinds(ctx)
	if err != nil {
		return err
	}
	prefix := k.Type() + "/" + id + "@"
	for _, other := range set.All() {
		if other.Sensitive() || other.Namespace() != namespaceConfig && other.Namespace() != "status" && other.Namespace() != "requests" {
			continue
		}
		all, err := w.client.List(ctx, other)
		if err != nil {
			continue // one that this person may not see
		}
		for _, r := range all {
			name := other.Singular() + "/" + r.GetMetadata().GetId()
			if version, ok := strings.CutPrefix(r.GetMetadata().GetAnnotations()[annotationCause], prefix); ok && !w.seen[name] {
				w.seen[name] = true
				f.because("%s answers to its version %s", name, version)
			}
		}
	}
	return nil
}
