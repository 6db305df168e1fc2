package attestation

import (
	"bytes"
	"context"
	"crypto"
	"crypto/x509"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"unicode"
	"unicode/utf16"

	"github.com/google/go-eventlog/register"
	"github.com/google/go-eventlog/tcg"
	"github.com/google/go-tpm/tpm2/transport"

	securitypb "github.com/cosi-os/cosi/api/cosi/security/v1alpha1"
	"github.com/cosi-os/cosi/sdk"
)

// eventLog is the firmware's log of what it, and the boot loader, have measured.
const eventLog = "sys/kernel/security/tpm0/binary_bios_measurements"

// log is the firmware's log, nil if there is none.
func (m *machine) log() ([]byte, error) {
	data, err := os.ReadFile(filepath.Join(m.root, eventLog))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return data, err
}

// measurements writes what the registers hold, and why.
func (m *machine) measurements(ctx context.Context, s *sdk.State, chip transport.TPM) error {
	all := make([]uint, registers)
	for i := range all {
		all[i] = uint(i)
	}
	values, err := readPCRs(chip, all)
	if err != nil {
		return err
	}
	raw, err := m.log()
	if err != nil {
		return err
	}
	measured, err := explain(values, raw)
	errs := []error{err}
	wanted := map[string]bool{}
	for _, one := range measured {
		id := fmt.Sprintf("pcr-%02d", one.GetPcr())
		wanted[id] = true
		errs = append(errs, s.Write(ctx, measurementType, id, one, nil))
	}
	for _, id := range s.Outputs(measurementType) {
		if !wanted[id] {
			errs = append(errs, s.Delete(ctx, measurementType, id))
		}
	}
	return errors.Join(errs...)
}

// explain says of each register that holds something, or that the log knows an event of, which events give its value. A log that cannot be read
// explains nothing, and is an error.
func explain(values [][]byte, raw []byte) ([]*securitypb.PlatformMeasurement, error) {
	events, wrong, err := replay(values, raw)
	var all []*securitypb.PlatformMeasurement
	for pcr, value := range values {
		one := &securitypb.PlatformMeasurement{Pcr: uint32(pcr), Sha256: hex.EncodeToString(value), Events: events[pcr]}
		n := len(one.GetEvents())
		switch {
		case n == 0 && (len(bytes.Trim(value, "\x00")) == 0 || len(bytes.Trim(value, "\xff")) == 0):
			continue // as it is after a reset
		case n == 0:
			one.Log, one.Message = "None", "measured by what keeps no log here"
		case wrong[pcr]:
			one.Log, one.Message = "Incomplete", fmt.Sprintf("%d events in the log give another value", n)
		default:
			one.Log, one.Message = "Complete", fmt.Sprintf("%d events in the log give this value", n)
		}
		all = append(all, one)
	}
	return all, err
}

// replay returns the events of the log by their registers, and the registers whose events do not give their values.
func replay(values [][]byte, raw []byte) (events map[int][]*securitypb.PlatformMeasurement_Event, wrong map[int]bool, err error) {
	events, wrong = map[int][]*securitypb.PlatformMeasurement_Event{}, map[int]bool{}
	if len(raw) == 0 {
		return events, wrong, nil
	}
	log, err := tcg.ParseEventLog(raw, tcg.ParseOpts{AllowPadding: true})
	if err != nil {
		return events, wrong, fmt.Errorf("%s: %w", eventLog, err)
	}
	for i, e := range log.Events(register.HashSHA256) {
		if e.Type == tcg.NoAction {
			continue // it is measured into nothing
		}
		events[e.Index] = append(events[e.Index], &securitypb.PlatformMeasurement_Event{
			Number: uint32(i + 1), Type: e.Type.TCGString(), Sha256: hex.EncodeToString(e.Digest), Description: description(e),
		})
	}
	var bank []register.MR
	for pcr, value := range values {
		if len(events[pcr]) > 0 {
			bank = append(bank, register.PCR{Index: pcr, Digest: value, DigestAlg: crypto.SHA256})
		}
	}
	var failed tcg.ReplayError
	if _, err := log.Verify(bank); errors.As(err, &failed) {
		for _, pcr := range failed.InvalidMRs {
			wrong[pcr] = true
		}
	} else if err != nil {
		return events, wrong, fmt.Errorf("%s: %w", eventLog, err)
	}
	return events, wrong, nil
}

// description is what was measured, as far as it is text.
func description(e tcg.Event) string {
	switch e.Type {
	case tcg.EFIVariableDriverConfig, tcg.EFIVariableBoot, tcg.EFIVariableBoot2, tcg.EFIVariableAuthority:
		v, err := tcg.ParseUEFIVariableData(bytes.NewReader(e.Data))
		if err != nil {
			return ""
		}
		return v.VarName() + certificatesOf(e.Type, v)
	case tcg.EFIBootServicesApplication, tcg.EFIBootServicesDriver, tcg.EFIRuntimeServicesDriver:
		load, err := tcg.ParseEFIImageLoad(bytes.NewReader(e.Data))
		if err != nil {
			return ""
		}
		return filePath(load)
	case tcg.Separator, tcg.EFIGPTEvent, tcg.EFIPlatformFirmwareBlob, tcg.EFIHandoffTables:
		return ""
	}
	return text(e.Data)
}

// certificatesOf names those that a variable of Secure Boot holds, or that vouched for a program.
func certificatesOf(kind tcg.EventType, v tcg.UEFIVariableData) string {
	var all []x509.Certificate
	if kind == tcg.EFIVariableAuthority {
		authority, _ := tcg.ParseUEFIVariableAuthority(v) // of what it cannot read it returns none
		all = authority.Certs
	} else if kind == tcg.EFIVariableDriverConfig {
		all, _, _ = v.SignatureData()
	}
	var names []string
	for i := range all {
		names = append(names, all[i].Subject.String())
	}
	if names == nil {
		return ""
	}
	return ": " + strings.Join(names, "; ")
}

const (
	mediaPath    = 4 // UEFI Specification 2.10, 10.3.5
	mediaFile    = 4
	shortestText = 3
)

// filePath is the path of a program on the file system that it was started from; empty if it came from elsewhere.
func filePath(load tcg.EFIImageLoad) string {
	elements, err := load.DevicePath()
	if err != nil {
		return ""
	}
	var path string
	for _, e := range elements {
		if e.Type == mediaPath && e.Subtype == mediaFile {
			path += wide(e.Data)
		}
	}
	return path
}

// text is data if it is text, in ASCII or in 16-bit units, as firmwares and boot loaders write it; else empty.
func text(data []byte) string {
	for _, text := range []string{string(bytes.TrimRight(data, "\x00")), wide(data)} {
		if len(text) >= shortestText && !strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) || r > unicode.MaxLatin1 }) {
			return text
		}
	}
	return ""
}

func wide(data []byte) string {
	units := make([]uint16, len(data)/2)
	for i := range units {
		units[i] = binary.LittleEndian.Uint16(data[2*i:])
	}
	return strings.TrimRight(string(utf16.Decode(units)), "\x00")
}
