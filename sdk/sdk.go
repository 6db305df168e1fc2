package sdk

import (
	"context"

	"google.golang.org/protobuf/proto"

	resourcepb "github.com/cosi-os/cosi/api/cosi/resource"
)

// EnvEndpoint is the environment variable with the plugin's socket: unix:///run/cosi/plugin/NAME.sock.
const EnvEndpoint = "COSI_ENDPOINT"

// Cause is the annotation that names the desired resource a write answers to: TYPE/ID@VERSION.
const Cause = "cosi.dev/cause"

// Plugin is a plugin: what it may do and the controllers that do it. It is inert until Main or Run takes it.
type Plugin struct {
	// Declaration is the plugin's plugin.json, embedded.
	Declaration []byte
	// Version is shown in PluginStatuses.
	Version     string
	Controllers []Controller
	// Early, if set, is called by Main before the plugin connects to the runtime. If it reports done, that was all: so the engine has a plugin do
	// something before there is a runtime, with the plugin's rights.
	Early func() (done bool, err error)
}

// Controller is one loop from inputs to outputs.
type Controller struct {
	Name string
	// Inputs are the types that Reconcile reads. The SDK watches them and keeps them in memory.
	Inputs []string
	// Outputs are the types that it writes, as the plugin.
	Outputs []string
	// Events are outputs that the controller writes once and never looks at again. The SDK neither watches them nor keeps them in memory: Write
	// creates and Delete removes them, Fetch asks the runtime which there are, and List, Get and Outputs panic.
	Events []string
	// Reconcile makes the world what the inputs say. It is called once all inputs are in memory, after each change, after each
	// wake, after a reconnect, and again with back-off (100 ms doubling to 30 s) when it returned an error.
	Reconcile func(ctx context.Context, s *State) error
	// Watch, if set, runs beside Reconcile for as long as the plugin does, and calls wake when the outside world may have
	// changed. It returns when ctx is done; when it returns an error before, it is started again with back-off.
	Watch func(ctx context.Context, wake func()) error
	// Drain, if set, is called once when the runtime asks the plugin to stop for good. Reconcile is not called afterwards.
	Drain func(ctx context.Context, s *State) error
}

// Resource is a resource in memory. Spec is shared by all readers: do not change it.
type Resource[T proto.Message] struct {
	*resourcepb.Metadata
	Spec T
}

// TearingDown reports whether the resource waits for its finalizers to go.
func (r Resource[T]) TearingDown() bool { return r.GetPhase() == phaseTearingDown }

const phaseTearingDown = "tearingDown"
