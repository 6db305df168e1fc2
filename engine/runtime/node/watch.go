package node

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	machinepb "github.com/cosi-os/cosi/api/cosi/machine/v1alpha1"
	networkpb "github.com/cosi-os/cosi/api/cosi/network/v1alpha1"
	servicepb "github.com/cosi-os/cosi/api/cosi/service/v1alpha1"
	"github.com/cosi-os/cosi/engine/runtime/observe"
	"github.com/cosi-os/cosi/engine/runtime/output"
	"github.com/cosi-os/cosi/engine/runtime/state"
	"github.com/cosi-os/cosi/engine/wire"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// Kinds that a snapshot is made of, and the one that Node writes.
var (
	linkStatuses        = state.Kind{Namespace: "status", Type: "LinkStatuses.network.cosi.dev"}
	addressStatuses     = state.Kind{Namespace: "status", Type: "AddressStatuses.network.cosi.dev"}
	dhcpStatuses        = state.Kind{Namespace: "status", Type: "DHCPClientStatuses.network.cosi.dev"}
	userDataSources     = state.Kind{Namespace: "status", Type: "UserDataSources.machine.cosi.dev"}
	pluginStatuses      = state.Kind{Namespace: "status", Type: "PluginStatuses.service.cosi.dev"}
	certificateStatuses = state.Kind{Namespace: "status", Type: "CertificatesStatuses.machine.cosi.dev"}
	machineStatuses     = state.Kind{Namespace: "status", Type: "MachineStatuses.machine.cosi.dev"}
)

// Machine is the id of the one MachineStatuses resource.
const Machine = "machine"

const (
	// coalesce is how long a change waits for others before MachineStatuses is written.
	coalesce = 10 * time.Millisecond
	// debounce is how long the consoles wait after the last change.
	debounce = 200 * time.Millisecond
	// patience is how long a node that boots shows nothing.
	patience = 10 * time.Second
)

// Config is what a Node is made of.
type Config struct {
	State   state.State
	Output  output.Writer
	Version string
	Port    int
	Outputs []string
	// Show sends lines to the consoles.
	Show func([]string)
	// Stage is called once for each of "address", when there is one that others can reach, and "ready".
	Stage func(name string)
	// Render makes the lines of a snapshot.
	Render func(*Snapshot) []string
}

// Node follows the state and writes MachineStatuses and the console at each change.
type Node struct {
	config  Config
	view    *observe.View
	changed chan struct{} // holds one at most

	mu        sync.Mutex // guards the fields below
	hello     wire.Hello
	stages    []wire.Stage
	watchdog  wire.Watchdog
	listening bool
	refusal   string
	storage   *machinepb.StateStatus
}

// New returns a Node; Run makes it work.
func New(c Config) *Node {
	n := &Node{config: c, changed: make(chan struct{}, 1)}
	n.view = observe.New(c.State, n.wake, linkStatuses, addressStatuses, dhcpStatuses, userDataSources, pluginStatuses, certificateStatuses)
	return n
}

func (n *Node) wake() {
	select {
	case n.changed <- struct{}{}:
	default: // A wake-up is pending.
	}
}

func (n *Node) update(f func()) {
	n.mu.Lock()
	f()
	n.mu.Unlock()
	n.wake()
}

// Hello, Stage, Watchdog, Listening, Refused and Storage are told by the host, the network and the storage; each is shown with the next
// snapshot. A stage is reached once.
func (n *Node) Hello(h wire.Hello) { n.update(func() { n.hello = h }) }

func (n *Node) Stage(s wire.Stage) {
	n.update(func() {
		if !slices.ContainsFunc(n.stages, func(known wire.Stage) bool { return known.Name == s.Name }) {
			n.stages = append(n.stages, s)
		}
	})
}

func (n *Node) Watchdog(w wire.Watchdog) { n.update(func() { n.watchdog = w }) }

func (n *Node) Listening() { n.update(func() { n.listening = true }) }

func (n *Node) Refused(why string) { n.update(func() { n.refusal = why }) }

func (n *Node) Storage(s *machinepb.StateStatus) { n.update(func() { n.storage = s }) }

// Name is the node's name, as it is shown at present.
func (n *Node) Name() string { return n.snapshot().Name() }

// Run follows the state until ctx is done. A console that does not change is not sent again.
func (n *Node) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	watched := make(chan error, 1)
	go func() { watched <- n.view.Run(ctx) }()
	err := n.loop(ctx)
	cancel()
	return errors.Join(err, <-watched)
}

// loop writes the status soon after a change, because clients wait for it, and the console later and less often: each character of a
// serial console costs. While the node boots, what it has not got yet is no news: the console waits until it is ready or patience is over.
func (n *Node) loop(ctx context.Context) error {
	status, console := time.NewTimer(0), time.NewTimer(patience)
	defer status.Stop()
	defer console.Stop()
	var shown []string
	reached := map[string]bool{}
	reach := func(name string) {
		if !reached[name] {
			reached[name] = true
			n.config.Stage(name)
		}
	}
	for booting := true; ; {
		select {
		case <-n.changed:
			status.Reset(coalesce)
			if !booting {
				console.Reset(debounce)
			}
		case <-status.C:
			if !n.view.Synced() {
				continue // nothing seen yet must not pass for nothing missing; a change follows
			}
			s := n.snapshot()
			if err := n.config.Output.Put(ctx, state.Pointer{Kind: machineStatuses, ID: Machine}, s.Status()); err != nil {
				return err
			}
			if slices.ContainsFunc(s.Addresses, serves) {
				reach("address")
			}
			if s.Readiness().Ready && !reached["ready"] {
				booting = false
				reach("ready")
				console.Reset(0)
			}
		case <-console.C:
			booting = false
			if lines := n.config.Render(n.snapshot()); !slices.Equal(lines, shown) {
				n.config.Show(lines)
				shown = lines
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (n *Node) snapshot() *Snapshot {
	n.mu.Lock()
	s := &Snapshot{
		Hello: n.hello, Version: n.config.Version, Port: n.config.Port, Outputs: n.config.Outputs,
		Storage: n.storage, Listening: n.listening, Refusal: n.refusal, Stages: slices.Clone(n.stages),
		Watchdog: n.watchdog.Identity,
	}
	n.mu.Unlock()
	s.Links = observe.Items[networkpb.LinkStatus](n.view, linkStatuses)
	s.Addresses = observe.Items[networkpb.AddressStatus](n.view, addressStatuses)
	s.DHCP = observe.Items[networkpb.DHCPClientStatus](n.view, dhcpStatuses)
	s.UserData = observe.Items[machinepb.UserDataSource](n.view, userDataSources)
	s.Plugins = observe.Items[servicepb.PluginStatus](n.view, pluginStatuses)
	for _, c := range observe.Items[machinepb.CertificatesStatus](n.view, certificateStatuses) {
		s.Certificates = c.Spec
	}
	return s
}

// Status is the content of MachineStatuses.
func (s *Snapshot) Status() *machinepb.MachineStatus {
	r := s.Readiness()
	m := &machinepb.MachineStatus{
		Ready: r.Ready, Reason: r.Reason, Message: r.Message,
		Name: s.Name(), Version: s.Version, Kernel: s.Hello.Kernel, Architecture: s.Hello.Architecture,
		BootId: s.Hello.BootID, Fingerprint: s.Certificates.GetFingerprint(), Pid1: s.Hello.PID1,
		Watchdog: s.Watchdog,
	}
	if !s.Hello.Booted.IsZero() {
		m.Booted = timestamppb.New(s.Hello.Booted)
	}
	if !s.Hello.Built.IsZero() {
		m.Built = timestamppb.New(s.Hello.Built)
	}
	for _, stage := range s.Stages {
		m.Stages = append(m.Stages, &machinepb.MachineStatus_Stage{Name: stage.Name, Milliseconds: stage.Milliseconds})
	}
	return m
}
