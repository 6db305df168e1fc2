package main

import (
	"fmt"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/cosi-os/cosi/images/keyfile"
	"github.com/cosi-os/cosi/images/secureboot"
	"github.com/cosi-os/cosi/tools/internal/commandline"
)

func genCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "gen",
		Short: "Make keys",
	}
	commandline.Group(cmd)
	cmd.AddCommand(genSecureBootKeysCommand(), genUpgradeKeysCommand())
	return cmd
}

func genSecureBootKeysCommand() *cobra.Command {
	var name string
	cmd := &cobra.Command{
		Use:   "secure-boot-keys DIR",
		Short: "Make keys for Secure Boot and for policies of a TPM",
		Long: `Makes in a directory the keys that a firmware asks for, each with its certificate: PK, KEK and db. db.key signs images. The .auth files make a
firmware in setup mode trust these keys, and nobody else's. pcr.key signs which boot images may have what a TPM keeps. Nothing is replaced.

A definition names them: secure_boot: {key: DIR/db.key, certificate: DIR/db.crt, enroll: if-safe, variables: DIR} and
pcr_policy: {key: DIR/pcr.key, public_key: DIR/pcr.pub}. Keep PK.key and KEK.key where no build is: a build does not need them.`,
		Example: `  cosi-image gen secure-boot-keys --name "Example Ltd" keys`,
		Args:    commandline.Arguments(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			names, err := secureboot.WriteKeys(args[0], name, time.Now())
			return written(cmd, args[0], names, err)
		},
	}
	cmd.Flags().StringVar(&name, "name", "COSI", "whose keys they are: the first word of the certificates' names")
	return cmd
}

func genUpgradeKeysCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "upgrade-keys DIR",
		Short: "Make a key that upgrades are signed with",
		Long: `Makes in a directory the Ed25519 key upgrade.key, which signs upgrades, its public half upgrade.pub, and upgrade-policy.yaml, the UpgradePolicies with
which a node takes what the key has signed. Nothing is replaced.

A definition names them: upgrade: {key: DIR/upgrade.key, public_key: DIR/upgrade.pub}. The policy goes to a node with "cosictl apply -f", in its user data,
or among the definition's resources.`,
		Example: `  cosi-image gen upgrade-keys keys
  cosictl apply -f keys/upgrade-policy.yaml`,
		Args: commandline.Arguments(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			names, err := keyfile.WriteUpgrade(args[0])
			return written(cmd, args[0], names, err)
		},
	}
}

// written prints the files that were written into a directory before err stopped that, which it returns.
func written(cmd *cobra.Command, dir string, names []string, err error) error {
	for _, file := range names {
		fmt.Fprintln(cmd.OutOrStdout(), filepath.Join(dir, file))
	}
	return err
}
