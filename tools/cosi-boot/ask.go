package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/cosi-os/cosi/tools/cosi-boot/internal/admin"
	"github.com/cosi-os/cosi/tools/cosi-boot/internal/image"
	"github.com/cosi-os/cosi/tools/internal/commandline"
)

// asked is how long an answer is waited for that is there.
const asked = 10 * time.Second

// patience is how long a build takes of which nothing is said.
const patience = 2 * time.Second

// addAdmin gives a command the flag that says where the server is.
func addAdmin(cmd *cobra.Command, address *string) {
	cmd.Flags().StringVar(address, "admin", defaultAdmin, "`address` where the server on this machine has its page")
}

// call sends a request to the server on this machine, and reads the answer. What the server refuses is the error.
func call(ctx context.Context, method, address, path string, body []byte, answer any) error {
	request, err := http.NewRequestWithContext(ctx, method, "http://"+address+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return fmt.Errorf("no boot server answers (cosi-boot serve): %w", err)
	}
	defer response.Body.Close()
	data, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		return errors.New(strings.TrimSpace(string(data)))
	}
	return json.Unmarshal(data, answer)
}

func machinesCommand() *cobra.Command {
	var address, format string
	cmd := &cobra.Command{
		Use:   "machines",
		Short: "Print the machines that a server on this machine has seen, and how far each has come",
		Long: `Prints the machines that a server on this machine has seen, and how far each has come: dhcp (told what to load), loader (has iPXE), script (iPXE has
its script), kernel (has the kernel), user-data (the node has it), serving (its API answers; whether it is ready, cosictl get machine says).`,
		Args: commandline.Arguments(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := context.WithTimeout(cmd.Context(), asked)
			defer cancel()
			list := admin.Machines{}
			if err := call(ctx, http.MethodGet, address, "/machines", nil, &list); err != nil {
				return err
			}
			return printMachines(cmd.OutOrStdout(), format, &list, time.Now())
		},
	}
	addAdmin(cmd, &address)
	commandline.AddOutput(cmd, &format, "table", "json")
	return cmd
}

func printMachines(out io.Writer, format string, list *admin.Machines, now time.Time) error {
	if format == "json" {
		encoder := json.NewEncoder(out)
		encoder.SetIndent("", "  ")
		return encoder.Encode(list.Machines)
	}
	table := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	fmt.Fprintln(table, "MAC\tADDRESS\tFIRMWARE\tIMAGE\tSTAGE\tBOOTS\tLAST\tPROBLEM")
	for _, m := range list.Machines {
		address := ""
		if m.Address.IsValid() {
			address = m.Address.String()
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%d\t%s\t%s\n", m.MAC, address, m.Firmware, m.Image, m.Stage, m.Boots, now.Sub(m.Last).Round(time.Second), m.Problem)
	}
	return table.Flush()
}

func postCommand() *cobra.Command {
	var address string
	cmd := &cobra.Command{
		Use:   "post DEFINITION",
		Short: "Have a server on this machine build an image, and print its id",
		Long: `Sends a definition to a server on this machine that was started with --tree, which builds the image, or has it. The id that is printed is what the
file of machines names: image: "sha256:…". A definition that is sent extends those of the tree's images, by their names, and names no files.`,
		Example: `  cosi-boot post mine.yaml`,
		Args:    commandline.Arguments(1, 1),
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return []string{"yaml"}, cobra.ShellCompDirectiveFilterFileExt
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			text, err := os.ReadFile(args[0])
			if err != nil {
				return err
			}
			defer time.AfterFunc(patience, func() {
				fmt.Fprintln(cmd.ErrOrStderr(), "The server builds the image. Its log says how far it is.")
			}).Stop()
			built := image.Built{}
			if err := call(cmd.Context(), http.MethodPost, address, "/images", text, &built); err != nil {
				// The server calls what it was sent by one name, whatever it is called here.
				return errors.New(strings.ReplaceAll(err.Error(), image.Posted+":", args[0]+":"))
			}
			fmt.Fprintln(cmd.OutOrStdout(), built.ID)
			return nil
		},
	}
	addAdmin(cmd, &address)
	return cmd
}
