package main

import (
	"context"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	machinepb "github.com/cosi-os/cosi/api/cosi/machine/v1alpha1"
	"github.com/cosi-os/cosi/tools/client"
	"github.com/cosi-os/cosi/tools/internal/commandline"
)

type upgradeCommand struct {
	delivery
	when string
}

func newUpgradeCommand(a *app) *upgradeCommand {
	u := &upgradeCommand{delivery: delivery{app: a, kind: "Upgrades.machine.cosi.dev", status: func() status { return &machinepb.UpgradeStatus{} }}}
	u.enough = func(is status) bool { return is.GetReason() == "Staged" && (u.noReboot || u.when != "") }
	return u
}

func newUpgrade(a *app) *cobra.Command {
	u := newUpgradeCommand(a)
	cmd := &cobra.Command{
		Use:   "upgrade FILE|URL",
		Short: "Have a node run another version of itself",
		Long: `Have a node run another version of itself, and wait until that is good.

FILE is what "cosi-image build" makes of the output "upgrade"; it is pushed to the node, and the command goes on where it stopped when it is
called again. From a URL (https or http, or oci://HOST/REPOSITORY for a blob of a registry) the node fetches it itself; its SHA-256 is needed then.
What a registry wants to know of who asks stands in a RegistryCredentials document ("cosictl explain registrycredentials"), not in the URL.

The node writes the new version into the slot that it does not run from, and reboots. If the new version is not healthy in time
("cosictl explain boothealth"), the version before comes back by itself, and the command says why.`,
		Example: `  cosictl upgrade build/cosi-base-amd64.upgrade
  cosictl upgrade https://images.example/cosi-base-amd64.upgrade --digest 9f86d0…
  cosictl upgrade oci://registry.example/cosi/base --digest 9f86d0…
  cosictl upgrade build/cosi-base-amd64.upgrade --when 2026-12-01T03:00:00Z
  cosictl get bootentries                  # what the node can be booted from
  cosictl rollback                         # back to the version before`,
		Args: commandline.Arguments(1, 1),
		RunE: a.withClient(u.run),

		ValidArgsFunction: completeUpgradeFile,
	}
	u.flags(cmd)
	u.digestFlag(cmd)
	return cmd
}

// completeUpgradeFile offers files of upgrades for the first argument.
func completeUpgradeFile(_ *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return []cobra.Completion{"upgrade"}, cobra.ShellCompDirectiveFilterFileExt
}

func newRollback(a *app) *cobra.Command {
	u := newUpgradeCommand(a)
	cmd := &cobra.Command{
		Use:   "rollback",
		Short: "Have a node run the version before again",
		Long: `Have a node run the version that is in its other slot, and wait until that is good.

It is on trial, like a new version: if it is not healthy in time, the version that runs now comes back. What was written since the upgrade stays.`,
		Example: `  cosictl rollback
  cosictl rollback --version 0.1.0         # only if it is that one`,
		Args: commandline.Arguments(0, 0),
		RunE: a.withClient(func(ctx context.Context, c *client.Client, _ []string) error {
			return u.ask(ctx, c, &machinepb.Upgrade{Previous: true})
		}),
	}
	u.flags(cmd)
	return cmd
}

func (u *upgradeCommand) flags(cmd *cobra.Command) {
	u.delivery.flags(cmd, "Upgrade")
	cmd.Flags().StringVar(&u.when, "when", "", "`time` to reboot at, as in 2026-12-01T03:00:00Z; do not wait for it")
	cmd.Flags().BoolVar(&u.noReboot, "no-reboot", false, "put it in place, for the next reboot, and do not wait for that")
	noFiles(cmd, "when")
}

func (u *upgradeCommand) run(ctx context.Context, c *client.Client, args []string) error {
	defer u.close()
	if err := u.open(args[0]); err != nil {
		return err
	}
	return u.ask(ctx, c, &machinepb.Upgrade{Url: u.url, Pushed: u.file != nil, Digest: u.digest})
}

// ask asks for an Upgrade, by what the flags add to it.
func (u *upgradeCommand) ask(ctx context.Context, c *client.Client, wanted *machinepb.Upgrade) error {
	wanted.Version, wanted.NoReboot = u.version, u.noReboot
	if u.when != "" && u.noReboot {
		return commandline.Usagef("--when says when to reboot, and --no-reboot not to: want one of them")
	}
	if u.when != "" {
		at, err := time.Parse(time.RFC3339, u.when)
		if err != nil {
			return commandline.Usagef("--when %s: want a time, as in 2026-12-01T03:00:00Z", u.when)
		}
		wanted.At = timestamppb.New(at)
	}
	return u.delivery.ask(ctx, c, wanted)
}
