// Command engine is the first process of a node, and what its other processes are started with.
//
//	engine                        as PID 1: bring the machine up
//	engine --root DIR [--port N]  run a node's processes from DIR, in a container or beside another init
//	engine launch … NAME          confine this process and become the plugin NAME, or the runtime
//	engine machine BEGAN          what the first process becomes once it has a root
//	engine version
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/cosi-os/cosi/engine/launch"
	"github.com/cosi-os/cosi/engine/node"
)

func main() {
	// The kernel hands words of its command line that it does not know to /init: they are not for us.
	if os.Getpid() == 1 && (len(os.Args) == 1 || os.Args[0] == "/init") {
		begin()
		return
	}
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "engine:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) > 0 {
		switch args[0] {
		case "launch":
			return launchArguments(args[1:])
		case "machine":
			return machineArguments(args[1:])
		case "version":
			return version()
		}
	}
	flags := flag.NewFlagSet("engine", flag.ExitOnError)
	root := flags.String("root", "", "run the node whose files are in this `directory`")
	port := flags.Int("port", 50000, "TCP `port` of the API; 0 takes a free one")
	flags.Parse(args)
	if *root == "" || flags.NArg() > 0 {
		fmt.Fprintf(flags.Output(), "engine: this is not process 1: --root says which node to run, and takes no arguments (%q)\n", flags.Args())
		flags.Usage()
		os.Exit(2)
	}
	return beside(*root, *port)
}

// machineArguments reads what begin passes on: when that was, in nanoseconds after the kernel's boot.
func machineArguments(args []string) error {
	if os.Getpid() != 1 || len(args) != 1 {
		return errors.New("machine: is for process 1 alone")
	}
	began, err := strconv.ParseInt(args[0], 10, 64)
	if err != nil {
		return fmt.Errorf("machine: %w", err)
	}
	machine(time.Duration(began))
	return nil
}

func launchArguments(args []string) error {
	flags := flag.NewFlagSet("engine launch", flag.ExitOnError)
	p := launch.Program{}
	flags.StringVar(&p.Root, "root", "/", "`directory` of the node")
	flags.IntVar(&p.Keep, "keep", 0, "`number` of descriptors, from 4 on, that the program gets")
	flags.Func("group", "supplementary `gid`, once for each", func(text string) error {
		gid, err := strconv.ParseUint(text, 10, 32)
		p.Groups = append(p.Groups, uint32(gid))
		return err
	})
	flags.Parse(args)
	name := flags.Arg(0)
	var err error
	if p.Declaration, err = node.Declaration(p.Root, name); err != nil {
		return launch.Refuse(err)
	}
	p.OOM = -500
	if name == node.RuntimeName {
		p.OOM = -900
	}
	return launch.Exec(p)
}

func version() error {
	image, err := node.ReadImage("/")
	if err != nil {
		image.Version = "unknown (no image here)"
	}
	fmt.Println("cosi engine", image.Version)
	return nil
}
