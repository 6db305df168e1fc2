// Package volume is the plugin that seals volumes to the machine's TPM and opens them: the node's own state, which PID 1 has it do before there is a
// runtime (package api/volume), and Volumes.
//
// A volume is in the format LUKS2, and encrypted by the kernel (dm-crypt). It has two keyslots: one for a secret that the TPM keeps (package
// tpmseal), and one for a recovery key, which is made with the volume and shown as a RecoveryKey until somebody proves to have it. When the TPM does not
// open a volume any more, because it was replaced or the machine boots differently, a VolumeUnlock with the recovery key does, and seals it again.
package volume

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io/fs"
	"os"

	powerpb "github.com/cosi-os/cosi/api/cosi/power/v1alpha1"
	storagepb "github.com/cosi-os/cosi/api/cosi/storage/v1alpha1"
	"github.com/cosi-os/cosi/api/layout/luks2"
	"github.com/cosi-os/cosi/api/volume"
	"github.com/cosi-os/cosi/plugins/internal/uevent"
	"github.com/cosi-os/cosi/sdk"
)

// Types of the plugin's inputs and outputs.
const (
	unlockType       = "VolumeUnlocks.storage.cosi.dev"
	volumeType       = "Volumes.storage.cosi.dev"
	recoveryType     = "RecoveryKeys.storage.cosi.dev"
	shutdownType     = "ShutdownRequests.power.cosi.dev"
	statusType       = "VolumeStatuses.storage.cosi.dev"
	unlockStatusType = "VolumeUnlockStatuses.storage.cosi.dev"
)

// Version is the plugin's version.
const Version = "0.1.0"

//go:embed plugin.json
var declared []byte

// Plugin returns the plugin.
func Plugin() sdk.Plugin { return plugin(real()) }

func plugin(m *machine) sdk.Plugin {
	c := &controller{machine: m, opened: map[string]opening{}}
	return sdk.Plugin{
		Declaration: declared, Version: Version,
		Early: func() (bool, error) {
			order := os.Getenv(volume.Order)
			if order == "" {
				return false, nil
			}
			return true, m.early(order)
		},
		Controllers: []sdk.Controller{{
			Name: "volumes", Inputs: []string{unlockType, volumeType},
			Outputs:   []string{recoveryType, shutdownType, statusType, unlockStatusType},
			Reconcile: c.reconcile,
			Watch: func(ctx context.Context, wake func()) error {
				return uevent.Watch(ctx, func(e uevent.Event) {
					if e.Action == uevent.Lost || e.Variables["SUBSYSTEM"] == "block" {
						wake()
					}
				})
			},
		}},
	}
}

type controller struct {
	*machine
	opened map[string]opening // volumes that are open
}

// opening is what the kernel does not know of a volume that it shows.
type opening struct{ policy, by string }

type (
	request = sdk.Resource[*storagepb.VolumeUnlock]
	status  = storagepb.VolumeStatus
)

// Reasons of a VolumeStatus.
const (
	reasonOpen          = "Open"
	reasonNotSealed     = "NotSealed"
	reasonLocked        = "Locked"
	reasonSourceMissing = "SourceMissing"
	reasonNotAVolume    = "NotAVolume"
	reasonFailed        = "Failed"
)

// reconcile unlocks first, so that what follows finds the volume open.
func (c *controller) reconcile(ctx context.Context, s *sdk.State) error {
	var errs []error
	for _, u := range sdk.List[*storagepb.VolumeUnlock](s, unlockType) {
		errs = append(errs, c.answer(ctx, s, u))
	}
	for _, id := range s.Outputs(unlockStatusType) {
		if _, wanted := sdk.Get[*storagepb.VolumeUnlock](s, unlockType, id); !wanted {
			errs = append(errs, s.Delete(ctx, unlockStatusType, id))
		}
	}
	errs = append(errs, c.state(ctx, s), c.volumes(ctx, s), c.showRecoveryKeys(ctx, s))
	return errors.Join(errs...)
}

// state shows the node's own volume as PID 1 has found it.
func (c *controller) state(ctx context.Context, s *sdk.State) error {
	is, err := volume.Read(c.dir)
	if errors.Is(err, fs.ErrNotExist) { // a node without a disk of its own
		return s.Delete(ctx, statusType, stateID)
	} else if err != nil {
		return err
	}
	st := &status{Source: is.Partition, Sealed: is.Sealed, Device: is.Device, Policy: is.Policy, UnlockedBy: is.UnlockedBy, Message: is.Message}
	switch {
	case !is.Sealed:
		st.Ready, st.Reason = true, reasonNotSealed
	case is.Device != "":
		st.Ready, st.Reason = true, reasonOpen
	default:
		st.Reason = reasonLocked
	}
	return s.Write(ctx, statusType, stateID, st, nil)
}

// showRecoveryKeys shows the keys that nobody has yet.
func (c *controller) showRecoveryKeys(ctx context.Context, s *sdk.State) error {
	keys, err := c.recoveryKeys()
	if err != nil {
		return err
	}
	var errs []error
	for id, key := range keys {
		errs = append(errs, s.Write(ctx, recoveryType, id, &storagepb.RecoveryKey{Key: key}, nil))
	}
	for _, id := range s.Outputs(recoveryType) {
		if keys[id] == "" {
			errs = append(errs, s.Delete(ctx, recoveryType, id))
		}
	}
	return errors.Join(errs...)
}

// answer does what a VolumeUnlock asks for, unless that has been done.
func (c *controller) answer(ctx context.Context, s *sdk.State, u request) error {
	before, ok := sdk.Get[*storagepb.VolumeUnlockStatus](s, unlockStatusType, u.GetId())
	if u.TearingDown() || ok && before.Spec.GetObservedVersion() == u.GetVersion() {
		return nil
	}
	is := &storagepb.VolumeUnlockStatus{ObservedVersion: u.GetVersion()}
	source, locked, err := c.find(s, u.GetId())
	if err == nil {
		err = c.unlock(u.GetId(), source, u.Spec.GetRecoveryKey(), locked)
	}
	switch {
	case errors.Is(err, luks2.ErrPassphrase):
		is.Reason, is.Message = "WrongKey", "that is not the recovery key of "+source
	case err != nil:
		is.Reason, is.Message = "Failed", err.Error()
	case !locked:
		is.Ready, is.Reason, is.Message = true, "KeyIsRight", source+" is opened by it, and the node forgets it"
	default:
		is.Ready, is.Reason, is.Message = true, "Resealed", source+" is sealed to this TPM"
	}
	reboot := is.GetReady() && locked && u.GetId() == stateID
	if reboot {
		is.Message += "; the node reboots"
	}
	if err := s.Write(ctx, unlockStatusType, u.GetId(), is, u.Metadata); err != nil || !reboot {
		return err
	}
	// The node has come up with its state in memory: what was kept is read by the next boot.
	return s.Write(ctx, shutdownType, "unlocked", &powerpb.ShutdownRequest{Action: powerpb.ShutdownRequest_REBOOT, Reason: "the state was unlocked by its recovery key"}, u.Metadata)
}

// find returns the device of a volume, and whether it waits for its recovery key.
func (c *controller) find(s *sdk.State, id string) (source string, locked bool, err error) {
	if id == stateID {
		is, err := volume.Read(c.dir)
		if err != nil || !is.Sealed {
			return "", false, errors.New("the state is not sealed")
		}
		return is.Partition, is.Device == "", nil
	}
	v, ok := sdk.Get[*storagepb.Volume](s, volumeType, id)
	if !ok || !isName(id) {
		return "", false, fmt.Errorf("there is no Volume %q", id)
	}
	node, err := c.mapped.find(id)
	return v.Spec.GetSource(), node == "", err
}

// unlock opens a locked volume by its recovery key and seals it to the TPM. Any but the state is shown at once. Of a volume that is open, it tries the key.
// It fails with luks2.ErrPassphrase if the key is wrong.
func (c *controller) unlock(id, source, key string, locked bool) error {
	f, err := openDevice(source, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if !locked {
		if err := try(f, key); err != nil {
			return err
		}
		return c.forgetRecoveryKey(id)
	}
	return c.withTPM(func(k keeper) error {
		v, err := k.reseal(f, key)
		if err != nil || id == stateID {
			return err
		}
		_, err = c.present(id, source, v, byRecovery)
		return err
	})
}
