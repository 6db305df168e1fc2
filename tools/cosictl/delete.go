package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"

	"github.com/cosi-os/cosi/api/kinds"
	"github.com/cosi-os/cosi/tools/client"
	"github.com/cosi-os/cosi/tools/internal/commandline"
)

type deleteCommand struct {
	*app
	files   []string
	timeout time.Duration
	missing bool
}

func newDelete(a *app) *cobra.Command {
	d := &deleteCommand{app: a}
	cmd := &cobra.Command{
		Use:   "delete {KIND ID | -f FILE...}",
		Short: "Tear resources down and destroy them",
		Long: `Tear resources down, wait until everybody who holds them has let go, and destroy them.

When the time is over, a resource stays in tearing down and goes as soon as it can; the exit code is 3.`,
		Example: `  cosictl delete mount data
  cosictl delete mountpoint/data --timeout 10s
  cosictl delete -f mount.yaml`,
		Args:              commandline.Arguments(0, 2),
		ValidArgsFunction: a.completeKindAndID,
		RunE:              a.withClient(d.run),
	}
	cmd.Flags().StringArrayVarP(&d.files, "filename", "f", nil, "`file`, directory or - that names the resources (repeat for more)")
	cmd.Flags().DurationVar(&d.timeout, "timeout", time.Minute, "how long to wait, for all together")
	cmd.Flags().BoolVar(&d.missing, "ignore-missing", false, "a resource that is not there is no error")
	return cmd
}

func (d *deleteCommand) run(ctx context.Context, c *client.Client, args []string) error {
	ctx, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()
	args = splitID(args)
	switch {
	case len(args) == 2 && len(d.files) == 0:
		k, err := c.Kind(ctx, args[0])
		if err != nil {
			return err
		}
		return d.delete(ctx, c, k, args[1])
	case len(args) > 0 || len(d.files) == 0:
		return commandline.Usagef("either KIND ID or -f FILE")
	}
	items, err := d.read(ctx, d.files, c.Kind)
	if err != nil {
		return err
	}
	// What was applied last may stand on what was applied first.
	slices.Reverse(items)
	for _, i := range items {
		if err := d.delete(ctx, c, i.kind, i.resource.GetMetadata().GetId()); err != nil {
			return err
		}
	}
	return nil
}

func (d *deleteCommand) delete(ctx context.Context, c *client.Client, k *kinds.Kind, id string) error {
	name := k.Singular() + "/" + id
	err := c.Delete(ctx, k, id)
	switch {
	case err == nil:
		fmt.Fprintf(d.out, "%s deleted\n", name)
		return nil
	case client.Code(err) == codes.NotFound && d.missing:
		fmt.Fprintf(d.out, "%s is not there\n", name)
		return nil
	case errors.Is(ctx.Err(), context.DeadlineExceeded) || client.Code(err) == codes.DeadlineExceeded:
		return timeoutError{fmt.Errorf("%s is still tearing down%s", name, d.holders(c, k, id))}
	}
	if client.Code(err) == codes.NotFound {
		return err // names the resource itself
	}
	return fmt.Errorf("%s: %w", name, err)
}

// holders says who has not let go. It gets a moment of its own: the command's time is over.
func (d *deleteCommand) holders(c *client.Client, k *kinds.Kind, id string) string {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	r, err := c.Get(ctx, k, id)
	if err != nil || len(r.GetMetadata().GetFinalizers()) == 0 {
		return ""
	}
	return ": held by " + strings.Join(r.GetMetadata().GetFinalizers(), ", ")
}
