package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	machinepb "github.com/cosi-os/cosi/api/cosi/machine/v1alpha1"
	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	"github.com/cosi-os/cosi/api/kinds"
	"github.com/cosi-os/cosi/tools/client"
	"github.com/cosi-os/cosi/tools/internal/commandline"
)

func newReset(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "reset",
		Short: "Give something up and start afresh",
	}
	commandline.Group(cmd)
	cmd.AddCommand(newResetState(a))
	return cmd
}

type resetStateCommand struct {
	*app
	confirm, reason string
	timeout         time.Duration
}

func newResetState(a *app) *cobra.Command {
	r := &resetStateCommand{app: a}
	cmd := &cobra.Command{
		Use:   "state --confirm NODE",
		Short: "Have a node give up what it keeps on its disk, and reboot",
		Long: `Have a node give up what it keeps on its disk, and reboot.

All configuration that was written over the API is gone afterwards; the node starts from its user data, as it did the first time.
A node that made its own certificate makes another, to be trusted again ("cosictl trust"). The old state is moved aside on the disk. This is also the way out for a node whose state is damaged ("cosictl get state").`,
		Example: `  cosictl export > node.yaml               # keep what can still be read
  cosictl reset state --confirm node-7`,
		Args: commandline.Arguments(0, 0),
		RunE: a.withClient(r.run),
	}
	cmd.Flags().StringVar(&r.confirm, "confirm", "", "the `name` of the node, so that it is no other one (see \"cosictl get machine\")")
	cmd.Flags().StringVar(&r.reason, "reason", "", "`why`, for the node's console and log")
	cmd.Flags().DurationVar(&r.timeout, "timeout", 30*time.Second, "how long to wait for the node's answer")
	return cmd
}

func (r *resetStateCommand) run(ctx context.Context, c *client.Client, _ []string) error {
	if r.confirm == "" {
		return commandline.Usagef("--confirm NODE is needed: all configuration that was written over the API is lost")
	}
	ctx, cancel := context.WithTimeout(ctx, r.timeout)
	defer cancel()
	k, err := c.Kind(ctx, "StateResets.machine.cosi.dev")
	if err != nil {
		return err
	}
	spec, err := proto.Marshal(&machinepb.StateReset{Confirm: r.confirm, Reason: r.reason})
	if err != nil {
		return err
	}
	id := "cosictl-" + time.Now().UTC().Format("20060102T150405.000")
	request := &resourcepb.Resource{
		Metadata: &resourcepb.Metadata{Namespace: k.Namespace(), Type: k.Type(), Id: id, Version: "1", Phase: "running"},
		Spec:     &resourcepb.Spec{ProtoSpec: spec},
	}
	if err := r.ask(ctx, c, k, request); err != nil {
		return err
	}
	fmt.Fprintf(r.out, "%s gives up its state and reboots\n", r.confirm)
	return nil
}

// ask writes the request and waits for the node's answer. It watches before it writes: a node that obeys is soon gone.
func (r *resetStateCommand) ask(ctx context.Context, c *client.Client, k *kinds.Kind, request *resourcepb.Resource) error {
	answers, err := c.Kind(ctx, k.Definition.GetObservedType())
	if err != nil {
		return err
	}
	asked := false
	err = c.Watch(ctx, answers, request.GetMetadata().GetId(), nil, func(event *resourcepb.Event) error {
		if event.GetEventType() == resourcepb.EventType_DESTROYED { // the first event: there is no answer yet
			asked = true
			_, _, err := c.Apply(ctx, k, request)
			return err
		}
		answer, err := client.ReadConvergence(answers, event.GetResource())
		switch {
		case err != nil:
			return err
		case answer.Ready:
			return client.ErrStop
		}
		return errors.New(answer.Message)
	})
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("the node has not answered within %v", r.timeout)
	case asked && client.Lost(err):
		return fmt.Errorf("the connection was lost before the node answered, \"cosictl get state\" shows what came of it: %w", err)
	}
	return err
}
