package main

import (
	"context"
	"encoding/base64"
	"fmt"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v4"

	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
	"github.com/cosi-os/cosi/api/document"
	"github.com/cosi-os/cosi/api/kinds"
	"github.com/cosi-os/cosi/tools/client"
	"github.com/cosi-os/cosi/tools/internal/commandline"
)

type watchCommand struct {
	*app
	selector string
	onlyNew  bool
	from     string
}

func newWatch(a *app) *cobra.Command {
	w := &watchCommand{app: a}
	cmd := &cobra.Command{
		Use:   "watch KIND [ID]",
		Short: "Print every event of a kind or a resource, one JSON object a line",
		Long: `Print every event of a kind or a resource, one JSON object a line:

  {"event":"UPDATED","bookmark":"…","resource":{"metadata":{…},"spec":{…}},"old":{…}}

What is there comes first, as CREATED, and then BOOTSTRAPPED. --from goes on after the bookmark of an earlier event. When the connection is
lost, the watch goes on where it was; if the node no longer has what followed, it says so and begins anew.`,
		Example: `  cosictl watch mountstatus
  cosictl watch mount/data
  cosictl watch links --only-new | jq -r .resource.metadata.id`,
		Args:              commandline.Arguments(1, 2),
		ValidArgsFunction: a.completeKindAndID,
		RunE:              a.withClient(w.run),
	}
	cmd.Flags().StringVarP(&w.selector, "selector", "l", "", "`condition` on labels, as for get")
	cmd.Flags().BoolVar(&w.onlyNew, "only-new", false, "leave out what is there already")
	cmd.Flags().StringVar(&w.from, "from", "", "go on after a `bookmark`")
	return cmd
}

func (w *watchCommand) run(ctx context.Context, c *client.Client, args []string) error {
	args = splitID(args)
	queries, err := selector(w.selector)
	if err != nil {
		return err
	}
	id := ""
	if len(args) == 2 {
		id = args[1]
	}
	if w.onlyNew && w.from != "" {
		return commandline.Usagef("--only-new and --from exclude each other")
	}
	options := &resourcepb.WatchOptions{LabelQuery: queries, BootstrapContents: id == "" && !w.onlyNew && w.from == ""}
	if w.from != "" {
		if options.StartFromBookmark, err = base64.StdEncoding.DecodeString(w.from); err != nil {
			return commandline.Usagef("--from %s: is not a bookmark", w.from)
		}
	}
	k, err := c.Kind(ctx, args[0])
	if err != nil {
		return err
	}
	first := id != "" && w.onlyNew // the state of one resource always comes first
	err = c.Follow(ctx, k, id, options, w.lost(), func(e *resourcepb.Event) error {
		if first {
			first = false
			return nil
		}
		return printEvent(w.app, k, e)
	})
	return interrupted(ctx, err)
}

// lost returns what tells the person that a watch was interrupted: once for each time, however often it is tried again.
func (a *app) lost() func(error, bool) {
	last := ""
	return func(reason error, missed bool) {
		text := reason.Error() + ": trying again"
		if missed {
			text = reason.Error() + ": events may be missing, what is there comes again"
		}
		if text != last {
			fmt.Fprintf(a.err, "cosictl: %s\n", text)
		}
		last = text
	}
}

func printEvent(a *app, k *kinds.Kind, e *resourcepb.Event) error {
	line := &yaml.Node{Kind: yaml.MappingNode}
	add := func(name string, value *yaml.Node) {
		line.Content = append(line.Content, &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: name}, value)
	}
	add("event", &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: e.GetEventType().String()})
	if len(e.GetBookmark()) > 0 {
		add("bookmark", &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: base64.StdEncoding.EncodeToString(e.GetBookmark())})
	}
	for _, part := range []struct {
		name     string
		resource *resourcepb.Resource
	}{{"resource", e.GetResource()}, {"old", e.GetOld()}} {
		if part.resource == nil {
			continue
		}
		n, err := document.Node(part.resource, k)
		if err != nil {
			return err
		}
		add(part.name, n)
	}
	_, err := fmt.Fprintln(a.out, string(document.JSON(line)))
	return err
}
