package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	"github.com/cosi-os/cosi/api/kinds"
	"github.com/cosi-os/cosi/tools/client"
	"github.com/cosi-os/cosi/tools/internal/commandline"
)

// Formats of -o.
const (
	formatTable = "table"
	formatYAML  = "yaml"
	formatJSON  = "json"
)

type getCommand struct {
	*app
	format   string
	selector string
	follow   bool
}

func newGet(a *app) *cobra.Command {
	g := &getCommand{app: a}
	cmd := &cobra.Command{
		Use:     "get [KIND [ID]]",
		Aliases: []string{"list"},
		Short:   "Show the kinds, the resources of a kind, or one resource",
		Long: `Show the kinds (without arguments), the resources of a kind, or one resource.

A kind goes by its type, plural, singular or an alias: MountPoints.storage.cosi.dev, mountpoints, mountpoint, mount.`,
		Example: `  cosictl get
  cosictl get mounts
  cosictl get mountpoint/data -o yaml
  cosictl list links -l 'tier=db,!old'
  cosictl get mountstatus -w`,
		Args:              commandline.Arguments(0, 2),
		ValidArgsFunction: a.completeKindAndID,
		RunE:              a.withClient(g.run),
	}
	commandline.AddOutput(cmd, &g.format, formatTable, formatYAML, formatJSON)
	cmd.Flags().StringVarP(&g.selector, "selector", "l", "", "`condition` on labels: key, !key, key=value, key!=value, 'key in (a, b)', key<10Gi; commas join")
	cmd.Flags().BoolVarP(&g.follow, "watch", "w", false, "go on showing what changes")
	return cmd
}

func (g *getCommand) run(ctx context.Context, c *client.Client, args []string) error {
	if args = splitID(args); len(args) == 0 {
		return g.kinds(ctx, c)
	}
	queries, err := selector(g.selector)
	if err != nil {
		return err
	}
	id := ""
	if len(args) == 2 {
		id = args[1]
		if len(queries) > 0 {
			return commandline.Usagef("-l selects among the resources of a kind, not one by its id")
		}
	}
	k, err := c.Kind(ctx, args[0])
	if err != nil {
		return err
	}
	if g.follow {
		return g.watch(ctx, c, k, id, queries)
	}
	if id != "" {
		r, err := c.Get(ctx, k, id)
		if err != nil {
			return err
		}
		return g.print(k, false, r)
	}
	all, err := c.List(ctx, k, queries...)
	if err != nil {
		return err
	}
	return g.print(k, true, all...)
}

func selector(text string) ([]*resourcepb.LabelQuery, error) {
	if text == "" {
		return nil, nil
	}
	q, err := client.ParseSelector(text)
	if err != nil {
		return nil, commandline.Usage(err)
	}
	return []*resourcepb.LabelQuery{q}, nil
}

// kinds lists the kinds as a table: their definitions are resources too, which -o yaml and json show.
func (g *getCommand) kinds(ctx context.Context, c *client.Client) error {
	if g.format != formatTable || g.follow {
		return g.run(ctx, c, []string{"resourcedefinitions"})
	}
	set, err := c.Kinds(ctx)
	if err != nil {
		return err
	}
	var rows [][]string
	for _, k := range set.All() {
		rows = append(rows, []string{k.ShortName(), strings.Join(k.Definition.GetAliases(), ","), k.Namespace(), k.Type(), oneLine(k.Definition.GetDescription())})
	}
	newTable(g.out, g.colours, "KIND", "ALIASES", "NAMESPACE", "TYPE", "DESCRIPTION").print(rows)
	return nil
}

func (g *getCommand) print(k *kinds.Kind, list bool, all ...*resourcepb.Resource) error {
	switch g.format {
	case formatYAML:
		return writeYAML(g.out, k, all...)
	case formatJSON:
		return writeJSON(g.out, k, list, all...)
	}
	if len(all) == 0 {
		fmt.Fprintf(g.err, "no %s\n", k.ShortName())
		return nil
	}
	var rows [][]string
	for _, r := range all {
		cells, err := row(k, r, g.now())
		if err != nil {
			return err
		}
		rows = append(rows, cells)
	}
	newTable(g.out, g.colours, header(k)...).print(rows)
	return nil
}

// watch shows what is there and then each change: a row, a YAML document, or a JSON object on a line.
func (g *getCommand) watch(ctx context.Context, c *client.Client, k *kinds.Kind, id string, queries []*resourcepb.LabelQuery) error {
	options := &resourcepb.WatchOptions{BootstrapContents: id == "", LabelQuery: queries, Aggregated: true}
	t := newTable(g.out, g.colours, header(k)...)
	var rows [][]string
	filling := id == ""
	err := c.Follow(ctx, k, id, options, g.lost(), func(e *resourcepb.Event) error {
		switch e.GetEventType() {
		case resourcepb.EventType_NOOP:
			return nil
		case resourcepb.EventType_BOOTSTRAPPED:
			filling = false
		default:
			if g.format != formatTable {
				return g.change(k, e)
			}
			cells, err := row(k, e.GetResource(), g.now())
			if err != nil {
				return err
			}
			if e.GetEventType() == resourcepb.EventType_DESTROYED {
				cells[0] = e.GetResource().GetMetadata().GetId() + " (destroyed)"
			}
			rows = append(rows, cells)
		}
		if !filling && g.format == formatTable {
			t.print(rows)
			rows = nil
		}
		return nil
	})
	return interrupted(ctx, err)
}

func (g *getCommand) change(k *kinds.Kind, e *resourcepb.Event) error {
	if g.format == formatJSON {
		return writeLine(g.out, k, e.GetResource())
	}
	if _, err := g.out.Write([]byte("---\n")); err != nil {
		return err
	}
	return writeYAML(g.out, k, e.GetResource())
}

// interrupted makes Ctrl-C the ordinary end of a command that never ends by itself.
func interrupted(ctx context.Context, err error) error {
	if ctx.Err() == context.Canceled {
		return nil
	}
	return err
}
