// Package probe is a plugin for tests: it tries once, one after the other, what its declaration gives it no right to, and writes a
// ProbeResult for each. A node is as it should be when all say that they were refused. It also prints which sockets wait for packets,
// and ends when a ProbeRequest asks for it. It runs as a program that is not in the image.
//
// Every attempt is chosen so that it does no harm if it succeeds.
package probe

import (
	"context"
	_ "embed"
	"errors"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	_ "github.com/cosi-os/cosi/api/cosi/service/v1alpha1" // PluginStatuses, the input
	testpb "github.com/cosi-os/cosi/api/cosi/test/v1alpha1"
	"github.com/cosi-os/cosi/sdk"
)

// Types of the plugin's inputs and outputs.
const (
	pluginType  = "PluginStatuses.service.cosi.dev"
	resultType  = "ProbeResults.test.cosi.dev"
	requestType = "ProbeRequests.test.cosi.dev"
	statusType  = "ProbeRequestStatuses.test.cosi.dev"
)

// Version is the plugin's version.
const Version = "0.1.0"

//go:embed plugin.json
var declared []byte

// Plugin returns the plugin.
func Plugin() sdk.Plugin { return plugin(systemAttempts(), ender{uint32(os.Getpid()), end}) }

func plugin(system []attempt, e ender) sdk.Plugin {
	p, listeners := &prober{system: system}, &sockets{directory: "/proc/self/net"}
	return sdk.Plugin{
		Declaration: declared,
		Version:     Version,
		Controllers: []sdk.Controller{{
			Name: "probes", Inputs: []string{pluginType}, Outputs: []string{resultType}, Reconcile: p.reconcile,
		}, {
			Name: "sockets", Reconcile: listeners.reconcile, Watch: listeners.watch,
		}, {
			Name: "requests", Inputs: []string{requestType}, Outputs: []string{statusType}, Reconcile: e.reconcile,
		}},
	}
}

// attempt is one thing to try.
type attempt struct {
	name  string // the id of the result
	words string
	try   func() error
}

type prober struct {
	system  []attempt
	results []*testpb.ProbeResult
}

// reconcile tries everything the first time, and writes what became of it each time.
func (p *prober) reconcile(ctx context.Context, s *sdk.State) error {
	if p.results == nil {
		for _, a := range append(apiAttempts(ctx, s), p.system...) {
			p.results = append(p.results, a.result())
		}
	}
	for _, r := range p.results {
		if err := s.Write(ctx, resultType, r.GetName(), r, nil); err != nil {
			return err
		}
	}
	return nil
}

func (a attempt) result() *testpb.ProbeResult {
	r := &testpb.ProbeResult{Name: a.name, Attempted: a.words}
	if err := a.try(); err != nil {
		r.Error, r.Refused = err.Error(), refused(err)
	}
	return r
}

// refused tells the want of a right from all else that can go wrong.
func refused(err error) bool {
	return errors.Is(err, fs.ErrPermission) || errors.Is(err, unix.EROFS) || status.Code(err) == codes.PermissionDenied
}
