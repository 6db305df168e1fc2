package main

import (
	"context"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/cosi-os/cosi/api/kinds/builtin"
	"github.com/cosi-os/cosi/tools/client"
)

// completionTime is how long a shell waits for a node before it offers nothing.
const completionTime = 2 * time.Second

type completer = func(cmd *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective)

// completeKindAndID offers kinds as the first argument and ids of that kind as the second.
func (a *app) completeKindAndID(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	var words []string
	switch len(args) {
	case 0:
		words = a.kindWords(cmd.Context())
	case 1:
		words = a.ids(cmd.Context(), args[0])
	}
	return words, cobra.ShellCompDirectiveNoFileComp
}

// completeIDs offers the ids of one kind as the first argument.
func (a *app) completeIDs(kind string) completer {
	return func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return a.ids(cmd.Context(), kind), cobra.ShellCompDirectiveNoFileComp
	}
}

func (a *app) completeContexts(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	config, _, err := a.config()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return config.Names(), cobra.ShellCompDirectiveNoFileComp
}

// kindWords are the kinds with their descriptions, of the node if it answers in time.
func (a *app) kindWords(ctx context.Context) []string {
	set := builtin.Set()
	_ = a.ask(ctx, func(ctx context.Context, c *client.Client) error {
		known, err := c.Kinds(ctx)
		if err == nil {
			set = known
		}
		return err
	})
	var words []string
	for _, k := range set.All() {
		words = append(words, k.ShortName()+"\t"+k.Definition.GetDescription())
	}
	return words
}

func (a *app) ids(ctx context.Context, kind string) []string {
	var words []string
	_ = a.ask(ctx, func(ctx context.Context, c *client.Client) error {
		k, err := c.Kind(ctx, kind)
		if err != nil {
			return err
		}
		all, err := c.List(ctx, k)
		for _, r := range all {
			words = append(words, r.GetMetadata().GetId())
		}
		return err
	})
	return words
}

// ask calls f with a node that must answer soon. A shell shows no errors: what fails completes nothing.
func (a *app) ask(ctx context.Context, f func(context.Context, *client.Client) error) error {
	ctx, cancel := context.WithTimeout(ctx, completionTime)
	defer cancel()
	c, err := a.dial()
	if err != nil {
		return err
	}
	defer c.Close()
	return f(ctx, c)
}

// splitID takes KIND/ID apart, the way resources are printed.
func splitID(args []string) []string {
	if len(args) == 1 {
		if kind, id, ok := strings.Cut(args[0], "/"); ok {
			return []string{kind, id}
		}
	}
	return args
}
