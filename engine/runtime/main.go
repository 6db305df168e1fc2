// Runtime holds the state of a node and serves it: to each plugin on a socket of its own, to people over the network.
//
// PID 1 starts it with sockets and a connection to itself (COSI_FDS, see package wire). Alone, for development, it serves one unix socket
// and trusts whoever can open it:
//
//	runtime --listen unix:///tmp/cosi.sock --data /var/tmp/cosi
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"syscall"

	machinepb "github.com/cosi-os/cosi/api/cosi/machine/v1alpha1"
	"github.com/cosi-os/cosi/engine/runtime/limit"
	"github.com/cosi-os/cosi/engine/wire"
	"google.golang.org/protobuf/proto"
)

func main() {
	listen := flag.String("listen", "", "serve alone on the unix socket `unix:///PATH`, trusting its callers")
	data := flag.String("data", "", "with --listen: keep everything in the directory `DIR`, not in memory")
	values := &machinepb.Limits{}
	flag.Func("limit", "with --listen: `NAME=NUMBER`, a field of Limits.machine.cosi.dev ("+limit.Names()+"); may be repeated", func(text string) error {
		return limit.Parse(values, text)
	})
	flag.Parse()
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(processors(runtime.GOMAXPROCS(0)))
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := run(ctx, *listen, *data, values, os.Getenv(wire.EnvDescriptors)); err != nil && !(errors.Is(err, context.Canceled) && ctx.Err() != nil) {
		fmt.Fprintln(os.Stderr, "runtime:", err)
		os.Exit(1)
	}
}

// processors returns how many of n the runtime computes with at a time: half, the others are for those that the machine is there for. They
// are not missed: a call goes through several goroutines, and with each processor more that waits for one of them it costs more
// (docs/performance.md).
func processors(n int) int { return (n + 1) / 2 }

func run(ctx context.Context, listen, data string, values *machinepb.Limits, descriptors string) error {
	switch {
	case listen != "":
		return serveAlone(ctx, listen, data, limit.New(values))
	case data != "":
		return errors.New("--data goes with --listen")
	case proto.Size(values) > 0:
		return errors.New("--limit goes with --listen")
	case descriptors != "":
		fds, err := parseDescriptors(descriptors)
		if err != nil {
			return fmt.Errorf("%s: %w", wire.EnvDescriptors, err)
		}
		return serveNode(ctx, fds)
	}
	return fmt.Errorf("started neither by the engine (%s is not set) nor with --listen", wire.EnvDescriptors)
}
