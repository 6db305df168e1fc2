// Load measures a server of the State API and prints what came of it beside the figures of another server and our targets:
//
//	runtime --listen unix:///tmp/x.sock &
//	go run ./hack/load -endpoint unix:///tmp/x.sock
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"

	"github.com/cosi-os/cosi/hack/load/drive"
)

func main() {
	endpoint := flag.String("endpoint", "unix:///tmp/x.sock", "where the server listens")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *endpoint); err != nil {
		fmt.Fprintln(os.Stderr, "load:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, endpoint string) error {
	s, err := drive.Open(endpoint)
	if err != nil {
		return err
	}
	defer s.Close()
	figures, err := drive.Memory(ctx, s)
	drive.Print(os.Stdout, figures)
	return err
}
