// Soak kills a runtime, or the machine below it, many times under load and appends to a file what came of it: which commit, how many
// rounds, what was wrong. It goes on where it was interrupted.
//
//	go run ./hack/soak -what runtime -rounds 1000 -seed 1 -for 20m -record docs/soak.md
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/cosi-os/cosi/hack/soak/hotplug"
	"github.com/cosi-os/cosi/hack/soak/kills"
	"github.com/cosi-os/cosi/hack/versions"
	"github.com/cosi-os/cosi/tools/qemu"
)

func main() {
	var o options
	flag.StringVar(&o.what, "what", whatRuntime, "what is done: runtime (killed), plug (pulled, in the middle of writes), first-boot (cut off), cut (of the power, anywhere in what a node wrote), upgrade (of one node, again and again), upgrade-cut (of the power, anywhere in an upgrade), or hotplug- and a bus (disks in and out): "+strings.Join(buses(), ", "))
	flag.StringVar(&o.program, "program", "build/bin/runtime", "the `runtime` to kill, or to recover with")
	flag.StringVar(&o.image, "image", "", "the `image` of the node (default build/cosi-DEFINITION-amd64.raw; hotplug needs test or test-metal, the others base)")
	rounds := flag.Int("rounds", 1000, "how often")
	seed := flag.Uint64("seed", 1, "of the moments and the writes")
	limit := flag.Duration("for", 20*time.Minute, "stop after that long, to go on the next time")
	progress := flag.String("progress", "", "`file` that says where to go on (default build/soak-WHAT.json)")
	record := flag.String("record", "docs/soak.md", "`file` to append to")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, *limit)
	defer cancel()
	if *progress == "" {
		*progress = "build/soak-" + o.what + ".json"
	}
	if err := run(ctx, o, *rounds, *seed, *progress, *record); err != nil {
		fmt.Fprintln(os.Stderr, "soak:", err)
		os.Exit(1)
	}
}

// What may be done.
const (
	whatRuntime    = "runtime"
	whatPlug       = "plug"
	whatFirstBoot  = "first-boot"
	whatCut        = "cut"
	whatUpgrade    = "upgrade"
	whatUpgradeCut = "upgrade-cut"
	whatHotplug    = "hotplug-" // and a bus
)

type options struct{ what, program, image string }

// state is where a soak stands, for one commit, seed and number of rounds.
type state struct {
	What     string
	Commit   string
	Seed     uint64
	Rounds   int
	Done     int
	Writes   int
	Events   int
	Failures []string
}

func run(ctx context.Context, o options, rounds int, seed uint64, progress, record string) error {
	commit, err := commit()
	if err != nil {
		return err
	}
	s, err := load(progress, state{What: o.what, Commit: commit, Seed: seed, Rounds: rounds})
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "soak")
	if err != nil {
		return err
	}
	fmt.Printf("commit %s, seed %d: %d of %d rounds are done\n", s.Commit, s.Seed, s.Done, s.Rounds)
	report, err := o.kill(ctx, dir, seed, s.Done, rounds-s.Done)
	if err != nil {
		return err
	}
	s.Done += report.Done
	s.Writes += report.Writes
	s.Events += report.Events
	s.Failures = append(s.Failures, report.Failures...)
	fmt.Printf("%d of %d rounds are done, %d failures\n", s.Done, s.Rounds, len(s.Failures))
	if err := errors.Join(s.save(progress), s.append(record)); err != nil {
		return err
	}
	if len(report.Failures) > 0 {
		return fmt.Errorf("%s\nwhat is left of it is in %s", strings.Join(report.Failures, "\n"), dir)
	}
	return os.RemoveAll(dir)
}

// hotplug does the rounds of disks that go in and out.
func (o options) hotplug(ctx context.Context, bus hotplug.Bus, dir string, seed uint64, first, rounds int) (kills.Report, error) {
	host, err := qemu.Find(ctx, qemu.AMD64)
	if err != nil {
		return kills.Report{}, err
	}
	r := hotplug.Soak(ctx, host, o.imageOf(bus.Definition), nil, hotplug.Config{Bus: bus, Dir: dir, Seed: seed, First: first, Rounds: rounds})
	for _, h := range r.Held {
		fmt.Println(h)
	}
	return kills.Report{Done: r.Done, Events: r.Events, Failures: r.Failures}, nil
}

// upgrades builds two versions in dir.
func upgrades(ctx context.Context, host *qemu.Host, dir string) (kills.Upgrades, error) {
	u := kills.Upgrades{Program: "build/bin/cosictl", Patience: 2 * time.Minute * host.Slower()}
	for _, name := range []string{"soak-a", "soak-b"} {
		file, err := versions.Build(ctx, ".", dir, name, "", func(format string, args ...any) { fmt.Printf(format+"\n", args...) })
		if err != nil {
			return u, err
		}
		u.Versions = append(u.Versions, file)
	}
	return u, nil
}

// imageOf is the file that the user names, or what make image makes of a definition.
func (o options) imageOf(definition string) string {
	if o.image != "" {
		return o.image
	}
	return "build/cosi-" + definition + "-amd64.raw"
}

// buses are the values of -what that stand for a bus, in the order of hotplug.Buses.
func buses() []string {
	var all []string
	for _, b := range hotplug.Buses {
		all = append(all, whatHotplug+b.Name)
	}
	return all
}

// kill does the rounds.
func (o options) kill(ctx context.Context, dir string, seed uint64, first, rounds int) (kills.Report, error) {
	if i := slices.Index(buses(), o.what); i >= 0 {
		return o.hotplug(ctx, hotplug.Buses[i], dir, seed, first, rounds)
	}
	var c kills.Config
	switch o.what {
	case whatRuntime:
		c = kills.Runtime{Program: o.program, Dir: dir, Log: os.Stderr}.Config()
	case whatPlug, whatFirstBoot, whatCut, whatUpgrade, whatUpgradeCut:
		host, err := qemu.Find(ctx, qemu.AMD64)
		if err != nil {
			return kills.Report{}, err
		}
		m, err := kills.NewMachine(host, o.imageOf("base"), dir, os.Stderr)
		if err != nil {
			return kills.Report{}, err
		}
		switch o.what {
		case whatFirstBoot:
			return m.FirstBoots(ctx, seed, first, rounds), nil
		case whatCut:
			return m.Cuts(ctx, o.program, seed, first, rounds), nil
		case whatUpgrade, whatUpgradeCut:
			u, err := upgrades(ctx, host, dir)
			if err != nil {
				return kills.Report{}, err
			}
			if o.what == whatUpgradeCut {
				return m.UpgradeCuts(ctx, u, seed, first, rounds), nil
			}
			return m.Upgrades(ctx, u, seed, first, rounds), nil
		}
		c = m.Config()
	default:
		return kills.Report{}, fmt.Errorf("-what %s: must be %s, %s, %s, %s, %s, %s, or %s", o.what, whatRuntime, whatPlug, whatFirstBoot, whatCut, whatUpgrade, whatUpgradeCut, strings.Join(buses(), ", "))
	}
	c.Seed, c.First, c.Rounds = seed, first, rounds
	return kills.Run(ctx, c), nil
}

// commit names what is tested, and whether it is exactly that.
func commit() (string, error) {
	out, err := exec.Command("git", "describe", "--always", "--dirty", "--abbrev=12").Output()
	if err != nil {
		return "", fmt.Errorf("git describe: %w", err)
	}
	return strings.TrimSpace(string(out)), nil
}

// load returns where the soak that fresh begins was interrupted, or fresh.
func load(path string, fresh state) (state, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return fresh, nil
	}
	if err != nil {
		return fresh, err
	}
	var s state
	if err := json.Unmarshal(data, &s); err != nil {
		return fresh, fmt.Errorf("%s: %w", path, err)
	}
	if s.What != fresh.What || s.Commit != fresh.Commit || s.Seed != fresh.Seed || s.Rounds != fresh.Rounds || s.Done >= s.Rounds || len(s.Failures) > 0 {
		return fresh, nil
	}
	return s, nil
}

func (s state) save(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	data, err := json.MarshalIndent(s, "", "\t")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(data, '\n'), 0o644)
}

const title = `# Soak

Each line is a run of ` + "`make soak`" + `: a runtime that was killed with SIGKILL in the middle of writes and watches, or a node whose plug was pulled then, and
compared with what it had acknowledged; or a first boot that was cut off, and the next one; or (cut) a recording of all that a node wrote to its disk, from
which the disk was made again as a loss of power might have left it, at a flush or between flushes, and recovered: a round is one such moment; or (upgrade)
a node that took one version after the other, and had to keep what it had acknowledged; or (upgrade-cut) a recording of an upgrade, from which the disk
was made again in the same way, and booted: a round is one such moment, and had to run one of the two versions; or (hotplug) a disk that was plugged into
a node and out again, or a medium that was put into a reader and taken out, of which each must be one event and right in Disks, and at the end nothing
more be held in memory or open. A run that was interrupted has a line for each part, which counts the parts before it.

| what | commit | seed | rounds | writes acknowledged | events seen | failures |
|---|---|---|---|---|---|---|
`

func (s state) append(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil {
		return err
	} else if info.Size() == 0 {
		fmt.Fprint(f, title)
	}
	failures := "none"
	if len(s.Failures) > 0 {
		failures = strings.ReplaceAll(strings.Join(s.Failures, "; "), "\n", "; ") // a row is a line
	}
	_, err = fmt.Fprintf(f, "| %s | %s | %d | %d of %d | %d | %d | %s |\n", s.What, s.Commit, s.Seed, s.Done, s.Rounds, s.Writes, s.Events, failures)
	return err
}
