package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/cosi-os/cosi/tools/client"
	"github.com/cosi-os/cosi/tools/internal/commandline"
)

func newVersion(a *app) *cobra.Command {
	var offline bool
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Show the versions of this program and of the node",
		Args:  commandline.Arguments(0, 0),
		RunE: func(cmd *cobra.Command, args []string) error {
			fmt.Fprintf(a.out, "Client:  %s\n", commandline.Version())
			if offline {
				return nil
			}
			return a.withClient(func(ctx context.Context, c *client.Client, _ []string) error {
				ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
				defer cancel()
				return nodeVersion(ctx, a, c)
			})(cmd, args)
		},
	}
	cmd.Flags().BoolVar(&offline, "client", false, "ask no node")
	return cmd
}

func nodeVersion(ctx context.Context, a *app, c *client.Client) error {
	k, err := c.Kind(ctx, "MachineStatuses.machine.cosi.dev")
	if err != nil {
		return err
	}
	r, err := c.Get(ctx, k, "machine")
	if client.Code(err) == codes.NotFound {
		fmt.Fprintln(a.out, "Node:    does not say")
		return nil
	}
	if err != nil {
		return err
	}
	m, err := k.Unmarshal(r.GetSpec().GetProtoSpec())
	if err != nil {
		return err
	}
	text := func(name protoreflect.Name) string {
		if field := m.Descriptor().Fields().ByName(name); field != nil && field.Kind() == protoreflect.StringKind {
			return oneLine(m.Get(field).String())
		}
		return ""
	}
	fmt.Fprintf(a.out, "Node:    %s (%s, Linux %s, %s)\n", text("version"), text("name"), text("kernel"), text("architecture"))
	return nil
}
