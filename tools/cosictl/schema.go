package main

import (
	"context"
	"encoding/json"

	"github.com/spf13/cobra"

	"github.com/cosi-os/cosi/api/kinds"
	"github.com/cosi-os/cosi/tools/client"
	"github.com/cosi-os/cosi/tools/internal/commandline"
	"github.com/cosi-os/cosi/tools/jsonschema"
)

func newSchema(a *app) *cobra.Command {
	var offline bool
	var image string
	cmd := &cobra.Command{
		Use:   "schema [KIND...]",
		Short: "Print the JSON Schema of kinds, for editors",
		Long: `Print the JSON Schema (draft 2020-12) of documents of some kinds, or of all that the node has. An editor with a YAML or JSON language server
completes and checks user data with it: put "# yaml-language-server: $schema=cosi.schema.json" on the first line.

What JSON Schema cannot say, such as rules that are expressions, is left to "cosictl validate" and the node.`,
		Example: `  cosictl schema > cosi.schema.json
  cosictl schema mount link --offline`,
		Args:              commandline.Arguments(0, 1000),
		ValidArgsFunction: a.completeKindAndID,
		RunE: func(cmd *cobra.Command, args []string) error {
			if offline || image != "" {
				set, err := offlineKinds(image)
				if err != nil {
					return err
				}
				return a.schema(args, set)
			}
			return a.withClient(func(ctx context.Context, c *client.Client, args []string) error {
				set, err := c.Kinds(ctx)
				if err != nil {
					return err
				}
				return a.schema(args, set)
			})(cmd, args)
		},
	}
	cmd.Flags().BoolVar(&offline, "offline", false, "take the kinds that this program was built with, without a node")
	addImage(cmd, &image)
	return cmd
}

func (a *app) schema(names []string, set *kinds.Set) error {
	chosen := set.All()
	if len(names) > 0 {
		chosen = nil
	}
	for _, name := range names {
		k, err := set.Lookup(name)
		if err != nil {
			return err
		}
		chosen = append(chosen, k)
	}
	encoder := json.NewEncoder(a.out)
	encoder.SetIndent("", "  ")
	encoder.SetEscapeHTML(false)
	return encoder.Encode(jsonschema.Of(chosen...))
}
