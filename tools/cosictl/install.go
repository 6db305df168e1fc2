package main

import (
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/reflect/protoreflect"

	machinepb "github.com/cosi-os/cosi/api/cosi/machine/v1alpha1"
	"github.com/cosi-os/cosi/tools/client"
	"github.com/cosi-os/cosi/tools/internal/commandline"
)

type installCommand struct {
	delivery
	disk                  map[string]string
	fingerprint, userData string
	keepState             bool
}

func newInstall(a *app) *cobra.Command {
	i := &installCommand{delivery: delivery{app: a, kind: "Installations.machine.cosi.dev", status: func() status { return &machinepb.InstallationStatus{} }}}
	// What becomes of a node that reboots into what it has installed, its user data says: it may not be this one any more.
	i.enough = func(is status) bool { return is.GetReason() == "Rebooting" }
	cmd := &cobra.Command{
		Use:   "install [FILE|URL]",
		Short: "Have a node that runs from memory install a version on a disk",
		Long: `Have a node that was booted from a CD, a stick or the network install a version on a disk, and reboot.

FILE is what "cosi-image build" makes of the output "upgrade"; it is pushed to the node. From a URL (https or http, or oci://HOST/REPOSITORY for a
blob of a registry, with RegistryCredentials if it is not everybody's) the node fetches it itself; its SHA-256 is needed then. With neither it is
what the CD or stick is of.

All that --disk says must be so of exactly one disk, and that must hold nothing. If it does, the command says what, and a fingerprint: with that, it is
overwritten. With --keep-state the disk must be one that a node has run from: its state partition stays as it is, with all that the node has kept, and
the rest is made anew. The installed node has the user data that it finds by itself, and that of --user-data.`,
		Example: `  cosictl get disks
  cosictl install --disk serial=S4EVNX0M
  cosictl install build/cosi-metal-amd64.upgrade --disk transport=nvme,model="Samsung SSD 980" --user-data lab1/user-data.yaml
  cosictl install --disk serial=S4EVNX0M --keep-state
  cosictl install https://images.example/cosi-metal-amd64.upgrade --digest 9f86d0… --disk name=sda`,
		Args: commandline.Arguments(0, 1),
		RunE: a.withClient(i.run),

		ValidArgsFunction: completeUpgradeFile,
	}
	i.flags(cmd, "Installation")
	i.digestFlag(cmd)
	cmd.Flags().StringToStringVar(&i.disk, "disk", nil, "`KEY=VALUE,…` that one disk has: "+strings.Join(selectors(), ", "))
	cmd.Flags().StringVar(&i.fingerprint, "fingerprint", "", "`fingerprint` of what the disk holds, to overwrite it")
	cmd.Flags().BoolVar(&i.keepState, "keep-state", false, "keep the state partition that the disk has")
	cmd.Flags().StringVar(&i.userData, "user-data", "", "`file` that is put on the disk as user data, for its first boot")
	cmd.Flags().BoolVar(&i.noReboot, "no-reboot", false, "go on running from memory")
	noFiles(cmd, "fingerprint")
	var keys []cobra.Completion
	for _, key := range selectors() {
		keys = append(keys, key+"=")
	}
	_ = cmd.RegisterFlagCompletionFunc("disk", cobra.FixedCompletions(keys, cobra.ShellCompDirectiveNoSpace|cobra.ShellCompDirectiveNoFileComp)) // fails only for an unknown flag
	return cmd
}

// selectors are the keys of --disk.
func selectors() (names []string) {
	fields := (&machinepb.Installation_Selector{}).ProtoReflect().Descriptor().Fields()
	for n := range fields.Len() {
		names = append(names, string(fields.Get(n).Name()))
	}
	return names
}

// selectorOf is what --disk says.
func selectorOf(disk map[string]string) (*machinepb.Installation_Selector, error) {
	if len(disk) == 0 {
		return nil, commandline.Usagef("--disk: want what one disk has, as in --disk serial=S4EVNX0M: cosictl get disks")
	}
	by := &machinepb.Installation_Selector{}
	m := by.ProtoReflect()
	for _, key := range slices.Sorted(maps.Keys(disk)) {
		field, value := m.Descriptor().Fields().ByName(protoreflect.Name(key)), disk[key]
		switch {
		case field == nil:
			return nil, commandline.Usagef("--disk %s=%s: want one of %s", key, value, strings.Join(selectors(), ", "))
		case value == "":
			return nil, commandline.Usagef("--disk %s=: says nothing, which would be so of every disk", key)
		case field.Kind() == protoreflect.StringKind:
			m.Set(field, protoreflect.ValueOfString(value))
		default:
			n, err := strconv.ParseUint(value, 10, 64)
			if err != nil {
				return nil, commandline.Usagef("--disk %s=%s: want a number of bytes", key, value)
			}
			m.Set(field, protoreflect.ValueOfUint64(n))
		}
	}
	return by, nil
}

func (i *installCommand) run(ctx context.Context, c *client.Client, args []string) error {
	by, err := selectorOf(i.disk)
	if err != nil {
		return err
	}
	wanted := &machinepb.Installation{
		Disk: by, Fingerprint: i.fingerprint, KeepState: i.keepState, Version: i.version, NoReboot: i.noReboot, Medium: len(args) == 0,
	}
	if i.userData != "" {
		text, err := os.ReadFile(i.userData)
		if err != nil {
			return fmt.Errorf("--user-data: %w", err)
		}
		wanted.UserData = string(text)
	}
	if len(args) > 0 {
		defer i.close()
		if err := i.open(args[0]); err != nil {
			return err
		}
	}
	wanted.Url, wanted.Pushed, wanted.Digest = i.url, i.file != nil, i.digest
	err = i.ask(ctx, c, wanted)
	if i.refused {
		return fmt.Errorf("%w\nThe node looks at it again when disks come or go. To take it back: cosictl delete installation %s", err, i.id)
	}
	return err
}
