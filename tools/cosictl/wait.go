package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"

	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	"github.com/cosi-os/cosi/api/kinds"
	"github.com/cosi-os/cosi/tools/client"
	"github.com/cosi-os/cosi/tools/internal/commandline"
)

type waitCommand struct {
	*app
	condition string
	timeout   time.Duration
}

func newWait(a *app) *cobra.Command {
	w := &waitCommand{app: a}
	cmd := &cobra.Command{
		Use:   "wait KIND/ID...",
		Short: "Wait until resources are ready, deleted, or say something",
		Long: `Wait until each resource meets the condition, and exit with 3 if that has not come within --timeout.

The conditions are "ready" (the status is of the version that is there now, and ready), "deleted", and FIELD=VALUE with the path of a field as
the columns of a kind have it: .spec.state=Applied. A resource that is not there yet is waited for.`,
		Example: `  cosictl wait mount/data
  cosictl wait mount/data mount/logs --for deleted --timeout 10s
  cosictl wait userdata/fw_cfg --for .spec.state=Applied`,
		Args:              commandline.Arguments(1, 1000),
		ValidArgsFunction: a.completeKindAndID,
		RunE:              a.withClient(w.run),
	}
	cmd.Flags().StringVar(&w.condition, "for", "ready", "`condition`: ready, deleted or FIELD=VALUE")
	cmd.Flags().DurationVar(&w.timeout, "timeout", time.Minute, "how long to wait, for all together")
	_ = cmd.RegisterFlagCompletionFunc("for", cobra.FixedCompletions([]string{"ready", "deleted"}, cobra.ShellCompDirectiveNoFileComp)) // fails only for an unknown flag
	return cmd
}

func (w *waitCommand) run(ctx context.Context, c *client.Client, args []string) error {
	if len(args) == 2 && !strings.Contains(args[0]+args[1], "/") {
		args = []string{args[0] + "/" + args[1]}
	}
	ctx, cancel := context.WithTimeout(ctx, w.timeout)
	defer cancel()
	for _, arg := range args {
		parts := splitID([]string{arg})
		if len(parts) != 2 {
			return commandline.Usagef("%q is not KIND/ID", arg)
		}
		k, err := c.Kind(ctx, parts[0])
		if err != nil {
			return err
		}
		if err := w.wait(ctx, c, k, parts[1]); err != nil {
			return err
		}
		fmt.Fprintf(w.out, "%s/%s %s\n", k.Singular(), parts[1], w.condition)
	}
	return nil
}

func (w *waitCommand) wait(ctx context.Context, c *client.Client, k *kinds.Kind, id string) error {
	if w.condition == "ready" && k.Definition.GetObservedType() != "" {
		version, err := w.until(ctx, c, k, id, func(r *resourcepb.Resource) (bool, error) { return r != nil, nil })
		if err != nil {
			return err
		}
		return c.Wait(ctx, k, id, version)
	}
	met, err := w.met(k)
	if err != nil {
		return err
	}
	_, err = w.until(ctx, c, k, id, met)
	return err
}

// met returns the condition. The resource is nil when there is none.
func (w *waitCommand) met(k *kinds.Kind) (func(*resourcepb.Resource) (bool, error), error) {
	switch path, value, isField := strings.Cut(w.condition, "="); {
	case w.condition == "deleted":
		return func(r *resourcepb.Resource) (bool, error) { return r == nil, nil }, nil
	case w.condition == "ready":
		return func(r *resourcepb.Resource) (bool, error) {
			if r == nil {
				return false, nil
			}
			if k.Message.Fields().ByName("ready") == nil {
				return true, nil // whatever has no status is so when it is there
			}
			converged, err := client.ReadConvergence(k, r)
			return converged.Ready, err
		}, nil
	case isField:
		return func(r *resourcepb.Resource) (bool, error) {
			if r == nil {
				return false, nil
			}
			spec, err := k.Unmarshal(r.GetSpec().GetProtoSpec())
			if err != nil {
				return false, err
			}
			got := cell(spec, r, path)
			if got == "?" {
				return false, commandline.Usagef("--for %s: %s have no field %s", w.condition, k.ShortName(), path)
			}
			return got == value, nil
		}, nil
	}
	return nil, commandline.Usagef("--for %s: must be ready, deleted or FIELD=VALUE", w.condition)
}

// until watches a resource until it meets a condition, and returns its version then.
func (w *waitCommand) until(ctx context.Context, c *client.Client, k *kinds.Kind, id string, met func(*resourcepb.Resource) (bool, error)) (version string, err error) {
	var last *resourcepb.Resource
	err = c.Watch(ctx, k, id, nil, func(e *resourcepb.Event) error {
		last = e.GetResource()
		if e.GetEventType() == resourcepb.EventType_DESTROYED {
			last = nil
		}
		ok, err := met(last)
		if ok {
			version = last.GetMetadata().GetVersion()
			return client.ErrStop
		}
		return err
	})
	// The node knows the deadline too, and may be the first to say that it is over.
	if err != nil && (ctx.Err() == context.DeadlineExceeded || client.Code(err) == codes.DeadlineExceeded) {
		return "", timeoutError{fmt.Errorf("%s/%s is not %s within %v: %s", k.Singular(), id, w.condition, w.timeout, standing(last))}
	}
	return version, err
}

// standing says in a few words how a resource stands.
func standing(r *resourcepb.Resource) string {
	m := r.GetMetadata()
	switch {
	case r == nil:
		return "it is not there"
	case m.GetPhase() != "running" && len(m.GetFinalizers()) > 0:
		return "it is being deleted and held by " + strings.Join(m.GetFinalizers(), ", ")
	case m.GetPhase() != "running":
		return "it is being deleted"
	}
	return "it is there, version " + m.GetVersion()
}
