// Package attestation is the plugin that shows what vouches for a node: Secure Boot, the kernel's lockdown, the registers of its TPM and the log of
// what was measured into them. For AttestationRequests it has the TPM sign the registers.
//
// What it shows is the node's own word. The TPM's signature is proof to whoever knows the TPM.
package attestation

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io/fs"

	"github.com/google/go-tpm/tpm2/transport"
	"github.com/google/go-tpm/tpm2/transport/linuxtpm"

	securitypb "github.com/cosi-os/cosi/api/cosi/security/v1alpha1"
	"github.com/cosi-os/cosi/sdk"
)

// Types of the plugin's inputs and outputs.
const (
	requestType     = "AttestationRequests.security.cosi.dev"
	answerType      = "AttestationStatuses.security.cosi.dev"
	measurementType = "PlatformMeasurements.security.cosi.dev"
	securityType    = "SecurityStatuses.security.cosi.dev"
)

// Version is the plugin's version.
const Version = "0.1.0"

//go:embed plugin.json
var declared []byte

// Plugin returns the plugin.
func Plugin() sdk.Plugin {
	// The kernel's resource manager: other users of the TPM have their own keys and sessions.
	return plugin(&machine{root: "/", open: func() (transport.TPMCloser, error) { return linuxtpm.Open("/dev/tpmrm0") }})
}

func plugin(m *machine) sdk.Plugin {
	return sdk.Plugin{Declaration: declared, Version: Version, Controllers: []sdk.Controller{{
		Name: "attestation", Inputs: []string{requestType}, Outputs: []string{answerType, measurementType, securityType}, Reconcile: m.reconcile,
	}}}
}

// machine is where the plugin finds what it tells of.
type machine struct {
	root string
	open func() (transport.TPMCloser, error)
}

// reconcile shows the state of the machine as it is now, and answers requests. Nothing but a request makes it look again: a register that is not
// quoted is nobody's business.
func (m *machine) reconcile(ctx context.Context, s *sdk.State) error {
	status := m.security()
	chip, err := m.open()
	missing := errors.Is(err, fs.ErrNotExist)
	switch {
	case missing:
		status.Tpm = "Missing"
	case err != nil:
		status.Tpm, status.Message = "Failed", err.Error()
	default:
		defer chip.Close()
		if status.Message, err = describe(chip); err != nil {
			status.Tpm, status.Message = "Failed", err.Error()
		} else {
			status.Tpm = "Present"
		}
	}
	errs := []error{s.Write(ctx, securityType, "security", status, nil)}
	if status.Tpm == "Present" {
		errs = append(errs, m.measurements(ctx, s, chip))
	} else {
		chip = nil
	}
	errs = append(errs, tidy(ctx, s))
	for _, r := range sdk.List[*securitypb.AttestationRequest](s, requestType) {
		errs = append(errs, m.answer(ctx, s, r, chip, status))
	}
	return errors.Join(errs...)
}

// tidy removes the answers of requests that are gone.
func tidy(ctx context.Context, s *sdk.State) error {
	var errs []error
	for _, id := range s.Outputs(answerType) {
		if _, wanted := sdk.Get[*securitypb.AttestationRequest](s, requestType, id); !wanted {
			errs = append(errs, s.Delete(ctx, answerType, id))
		}
	}
	return errors.Join(errs...)
}

// answer has a request answered by chip, nil if there is none, unless that has been done.
func (m *machine) answer(ctx context.Context, s *sdk.State, r sdk.Resource[*securitypb.AttestationRequest], chip transport.TPM, status *securitypb.SecurityStatus) error {
	before, ok := sdk.Get[*securitypb.AttestationStatus](s, answerType, r.GetId())
	if r.TearingDown() || ok && before.Spec.GetObservedVersion() == r.GetVersion() {
		return nil
	}
	a := &securitypb.AttestationStatus{Reason: "NoTPM", Message: "this machine has no TPM 2.0"}
	if chip != nil {
		a = m.quote(chip, r.Spec)
	} else if status.GetTpm() == "Failed" {
		a.Reason, a.Message = "Failed", status.GetMessage()
	}
	a.ObservedVersion = r.GetVersion()
	return s.Write(ctx, answerType, r.GetId(), a, r.Metadata)
}

// quote is the answer of chip.
func (m *machine) quote(chip transport.TPM, request *securitypb.AttestationRequest) *securitypb.AttestationStatus {
	a, err := signed(chip, request.GetNonce(), request.GetPcrs())
	if err == nil && request.GetEventLog() {
		a.EventLog, err = m.log()
	}
	if err != nil {
		return &securitypb.AttestationStatus{Reason: "Failed", Message: err.Error()}
	}
	a.Ready, a.Reason, a.Message = true, "Quoted", fmt.Sprintf("%d registers", len(a.GetPcrs()))
	if len(a.GetEkCertificate()) == 0 {
		a.Message += "; the TPM has no certificate of its manufacturer"
	}
	return a
}
